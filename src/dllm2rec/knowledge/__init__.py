"""What a teacher knows, on disk: the contract between teachers, which write it, and students, which read it."""

from dllm2rec.knowledge.schema import KnowledgeManifest, Labels
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter

__all__ = ["Knowledge", "KnowledgeManifest", "KnowledgeWriter", "Labels"]
