# SPDX-License-Identifier: Apache-2.0
"""Types of clients whose schemas several tests use."""

import enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Color(enum.Enum):
    RED, BLUE = "red", "blue"


class Cat(BaseModel):
    """A cat."""

    kind: Literal["cat"]
    lives: int = Field(9, ge=1, le=9, description="What is left.")


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=1, max_length=9)]


class Node(BaseModel):
    value: float
    children: list["Node"] = []
