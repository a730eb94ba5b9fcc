"""Item indices and the one padding rule.

External ids are whatever the user's log holds (text or integers); inside, items are ``0 .. num_items - 1`` in the order
of the catalogue, so that index ``i`` is row ``i`` of every item matrix and column ``i`` of every score matrix. Padding
is the index after the last item. Histories are padded on the left: the most recent item is always in the last column.
"""

DECAY = 0.8
"""How much an item of a history counts beside the next newer one, where what is near to each is added up."""


def padding_index(num_items: int) -> int:
    """Return the index that stands for "no item" in a catalogue of ``num_items`` items."""
    return num_items
