"""A student without its teacher and without PyTorch: a bundle on disk, and top-k from it with numpy and onnxruntime."""
