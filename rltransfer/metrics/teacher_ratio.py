"""How much of its teacher's return a student keeps."""

from __future__ import annotations

from collections.abc import Sequence

from rltransfer.errors import InputError
from rltransfer.metrics.intervals import Interval, mean_interval


def return_ratio(student: float, teacher: float, zero: float = 0.0) -> float:
    """A student's return relative to its teacher's: (student - zero) / (teacher - zero).

    Without unit. It is 0 if the teacher's return is the zero.

    Args:
        student: The student's mean return.
        teacher: The teacher's mean return on the same episodes.
        zero: The return that counts as 0, e.g. that of a random policy.
    """
    return (student - zero) / (teacher - zero) if teacher != zero else 0.0


def retention(
    students: Sequence[float],
    teachers: Sequence[float],
    random: Sequence[float] | None = None,
) -> Interval:
    """The percentage of the teacher's return that students keep.

    Formula: the mean over seeds of 100 * (student - random) / (teacher - random), with its interval
    (Student's t); without `random`, of 100 * student / teacher. Unit: per cent. With one seed there
    is no interval.

    Args:
        students: Mean return of each seed's student.
        teachers: Mean return of the teacher on the same episodes, by seed.
        random: Mean return of a random policy, by seed: returns are then counted from it. Needed
            where returns may be negative.

    Raises:
        InputError: The numbers of seeds differ, or a teacher is not better than the random policy,
            without `random` than 0.
    """
    zeros = [0.0] * len(students) if random is None else list(random)
    if not len(students) == len(teachers) == len(zeros):
        raise InputError(
            f"There are {len(students)} students, {len(teachers)} teachers and {len(zeros)} random "
            "policies: give one return of each per seed."
        )
    for teacher, zero in zip(teachers, zeros, strict=True):
        if not teacher > zero:
            what = "0: count returns from a random policy's" if random is None else f"{zero:g}"
            raise InputError(
                f"The teacher's return is {teacher:g}, not above {what}; there is nothing to keep."
            )
    return mean_interval(
        [100 * return_ratio(*row) for row in zip(students, teachers, zeros, strict=True)]
    )
