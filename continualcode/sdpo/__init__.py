"""Self-Distillation Policy Optimization, usable alone: `from continualcode.sdpo import SDPOTrainer`."""

from continualcode.sdpo.divergence import Distilled, distill_candidates, distill_sampled, importance_ratio
from continualcode.sdpo.reprompt import RepromptTemplate, teacher_context
from continualcode.sdpo.teachers import TEACHERS, CurrentTeacher, FrozenTeacher
from continualcode.sdpo.trainer import SDPOConfig, SDPOTrainer

__all__ = [
    "TEACHERS",
    "CurrentTeacher",
    "Distilled",
    "FrozenTeacher",
    "RepromptTemplate",
    "SDPOConfig",
    "SDPOTrainer",
    "distill_candidates",
    "distill_sampled",
    "importance_ratio",
    "teacher_context",
]
