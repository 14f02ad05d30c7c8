"""Settings and choices: what is checked, what is said, and how layers lie over each other."""

import math
from typing import Annotated

import pytest
from pydantic import Field

from repulse.common.errors import RepulseError
from repulse.common.settings import Choice, Choices, OneOf, Settings, merge, overlay, to_yaml, validate


class Shape(Choice):
    """A base to choose from."""


SHAPES: Choices[Shape] = Choices("shape")


@SHAPES.register("circle")
class Circle(Shape):
    radius: float = Field(1.0, gt=0, description="r.")


@SHAPES.register("box")
class Box(Shape):
    width: float = Field(2.0, description="w.")
    height: float = Field(3.0, description="h.")


@SHAPES.register("unit-box")
class UnitBox(Box):
    width: float = Field(1.0, description="w.")


class Drawing(Settings):
    title: str = "none"
    shape: Annotated[Shape, OneOf(SHAPES)] = Circle()


def test_a_choice_is_made_from_a_name_from_keys_or_from_itself():
    assert Drawing(shape="box").shape == Box()
    assert Drawing(shape={"name": "box", "width": "7"}).shape == Box(width=7)
    assert Drawing(shape=UnitBox(height=5)).shape == UnitBox(width=1, height=5)
    assert Drawing().shape == Circle(radius=1)


def test_what_is_written_is_what_is_read():
    drawing = Drawing(shape=UnitBox(height=5))
    assert to_yaml(drawing) == "title: none\nshape:\n  name: unit-box\n  width: 1.0\n  height: 5.0\n"
    assert merge(Drawing(), drawing.model_dump(mode="json"), "test") == drawing


def test_another_name_starts_from_its_own_defaults_and_the_same_name_goes_on():
    base = Drawing(title="a", shape=Box(width=7))
    assert merge(base, {"shape": {"height": 9}}, "test") == Drawing(title="a", shape=Box(width=7, height=9))
    assert merge(base, {"shape": {"name": "unit-box"}}, "test").shape == UnitBox()
    assert merge(base, {"shape": "circle"}, "test").shape == Circle()
    assert overlay(Drawing, {}, {"shape": {"radius": 4}})["shape"] == {"name": "circle", "radius": 4}


def test_null_is_the_default_and_may_be_said_of_other_kinds():
    """Files from before kinds had settings of their own say null for those of all others."""
    assert SHAPES.make({"name": "circle", "radius": None, "width": None}) == Circle()
    with pytest.raises(RepulseError, match="has no setting 'depth'"):
        SHAPES.make({"name": "circle", "depth": None})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("boxx", "unknown shape 'boxx'; did you mean 'box'? known: box, circle, unit-box"),
        (
            {"name": "box", "widht": 1},
            "shape 'box' has no setting 'widht'; did you mean 'width'? (it has: width,",
        ),
        (
            {"name": "circle", "height": 1},
            "shape 'circle' has no setting 'height'; leave out shape.height (it",
        ),
        ({"name": "circle", "radius": 0}, "shape 'circle': radius: input should be greater than 0, got 0"),
        ({"name": "circle", "radius": math.inf}, "shape 'circle': radius: input should be a finite number, got inf"),
        ({"radius": 1}, "a shape is given by its name, or by keys of which one is its name, got {'radius': 1}"),
        (3, "a shape is given by its name, or by keys of which one is its name, got 3"),
    ],
)
def test_mistakes_name_the_kind_and_suggest_the_nearest(shape, message):
    with pytest.raises(RepulseError) as raised:
        validate(Drawing, {"shape": shape}, "a.yaml")
    assert str(raised.value).startswith(f"a.yaml: {message}")


def test_what_cannot_be_chosen_by_its_name_alone_is_refused_at_once():
    with pytest.raises(ValueError, match="shape 'line' needs a default for length"):

        @SHAPES.register("line")
        class Line(Shape):
            length: float

    with pytest.raises(ValueError, match="Circle is shape 'circle' already; register a subclass"):
        SHAPES.register("disc")(Circle)
    with pytest.raises(ValueError, match="shape 'box' is registered twice"):
        SHAPES.register("box")(type("Other", (Shape,), {"__module__": __name__}))
