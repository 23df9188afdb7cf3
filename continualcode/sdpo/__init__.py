"""Self-Distillation Policy Optimization, usable alone: `from continualcode.sdpo import SDPOTrainer`."""

from continualcode.sdpo.batched import Batched
from continualcode.sdpo.divergence import Distilled, distill_candidates, distill_sampled, importance_ratio
from continualcode.sdpo.reprompt import RepromptTemplate, teacher_context
from continualcode.sdpo.settings import SDPOConfig
from continualcode.sdpo.teachers import (
    TEACHERS,
    CurrentTeacher,
    EMATeacher,
    ExactEMATeacher,
    FrozenTeacher,
    TeacherFactory,
    TrustRegionTeacher,
)
from continualcode.sdpo.trainer import SDPOTrainer

__all__ = [
    "TEACHERS",
    "Batched",
    "CurrentTeacher",
    "Distilled",
    "EMATeacher",
    "ExactEMATeacher",
    "FrozenTeacher",
    "RepromptTemplate",
    "SDPOConfig",
    "SDPOTrainer",
    "TeacherFactory",
    "TrustRegionTeacher",
    "distill_candidates",
    "distill_sampled",
    "importance_ratio",
    "teacher_context",
]
