from student_conformance import StudentConformance

from dllm2rec.students.caser import CaserSettings
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.students.transformer import TransformerSettings


class TestSASRec(StudentConformance):
    settings = SASRecSettings()


class TestSASRecTwoBlocks(StudentConformance):
    settings = SASRecSettings(blocks=2)


class TestGRU4Rec(StudentConformance):
    settings = GRU4RecSettings()


class TestGRU4RecTwoLayers(StudentConformance):
    settings = GRU4RecSettings(layers=2)


class TestCaser(StudentConformance):
    settings = CaserSettings(heights=(1, 2, 3, 20), horizontal_filters=4, vertical_filters=2)


class TestTransformer(StudentConformance):
    settings = TransformerSettings()


class TestTransformerTwoBlocks(StudentConformance):
    settings = TransformerSettings(blocks=2, inner=2)
