"""The plan of the street: its size, doors, furniture, and the ground people keep clear of.

Promise: made from a random generator once and then read only. The street is a closed rectangle of
houses around the origin: walls at x = ±half_length and y = ±half_width, all in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DOOR_HALF_M = 1.0
DOOR_HEIGHT_M = 2.6
WALLS: tuple[str, ...] = ("north", "south", "east", "west")
CROWN_M = (1.45, 1.45, 1.1)  # half sizes of the ball of leaves
CROWN_Z = 4.1
LEAVES = 7000


@dataclass(frozen=True, slots=True)
class Door:
    """An open doorway in a wall.

    Attributes:
        wall: north (+y), south (-y), east (+x) or west (-x).
        along: its middle, metres along the wall's axis (x for north and south, y otherwise).
        wall_at: distance of the wall from the origin, metres.
    """

    wall: str
    along: float
    wall_at: float

    def point(self, inside: float) -> Array:
        """The ground point `inside` metres in front of the doorway (negative: behind it)."""
        out = self.wall_at - inside
        if self.wall == "north":
            return np.array([self.along, out])
        if self.wall == "south":
            return np.array([self.along, -out])
        if self.wall == "east":
            return np.array([out, self.along])
        return np.array([-out, self.along])

    def depth_behind(self, x: float, y: float) -> float:
        """Metres that a point lies behind this door's wall; 0 or less: in the street."""
        across = y if self.wall in ("north", "south") else x
        if self.wall in ("south", "west"):
            across = -across
        along = x if self.wall in ("north", "south") else y
        return across - self.wall_at if abs(along - self.along) < DOOR_HALF_M + 0.6 else 0.0

    def corners(self) -> Array:
        """The opening's four corners in the world, (4, 3), bottom first, in ring order."""
        places = []
        for along, up in (
            (-DOOR_HALF_M, 0.0),
            (DOOR_HALF_M, 0.0),
            (DOOR_HALF_M, DOOR_HEIGHT_M),
            (-DOOR_HALF_M, DOOR_HEIGHT_M),
        ):
            x, y = Door(self.wall, self.along + along, self.wall_at).point(0.0)
            places.append([x, y, up])
        return np.array(places)


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A convex body: all points p with normals @ p <= offsets.

    Attributes:
        normals: (n, 3) of unit length, outwards.
        offsets: (n,) metres.
        vertices: (m, 3) metres.
        colour: BGR, 0..255.
        gloss: 0 (cloth) .. 1 (glass, reflects the sky).
    """

    normals: Array
    offsets: Array
    vertices: Array
    colour: tuple[float, float, float]
    gloss: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Prop:
    """A piece of street furniture: solids on one footprint, and maybe leaves.

    Attributes:
        kind: car, lamp, bench, tree, crown (of a tree), bin.
        footprint: x1, y1, x2, y2 in metres.
        solids: what it is made of.
        leaves: (n, 3) places of leaves, metres; may be empty.
        leaf_colour: BGR.
    """

    kind: str
    footprint: tuple[float, float, float, float]
    solids: tuple[Solid, ...]
    leaves: Array
    leaf_colour: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def stands(self) -> bool:
        """Whether people must walk round it (they walk under a crown)."""
        return self.kind != "crown"

    def hides(self, eye: Array, x: float, y: float) -> bool:
        """Whether it can stand between an eye and a person at (x, y).

        It cannot where both are on the outer side of one edge of the footprint.
        """
        x1, y1, x2, y2 = self.footprint
        return not (
            (x > x2 and eye[0] > x2)
            or (x < x1 and eye[0] < x1)
            or (y > y2 and eye[1] > y2)
            or (y < y1 and eye[1] < y1)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """The whole plan; see the module."""

    half_length: float
    half_width: float
    road_half: float
    doors: tuple[Door, ...]
    props: tuple[Prop, ...]

    def keep_clear(self, way: Array, clearance: float) -> Array:
        """Move the points of a way (n, 2) out of the furniture, to its nearest edge."""
        moved = way.copy()
        prints = np.array([prop.footprint for prop in self.props if prop.stands]).reshape(-1, 4)
        low, high = prints[:, :2] - clearance, prints[:, 2:] + clearance
        reached = (way[:, None] > low) & (way[:, None] < high)
        for number in np.flatnonzero(reached.all(axis=2).any(axis=0)):
            (x1, y1), (x2, y2) = low[number], high[number]
            x, y = moved[:, 0], moved[:, 1]
            gaps = np.stack([x - x1, x2 - x, y - y1, y2 - y])
            inside = (gaps > 0).all(axis=0)
            # one side for each visit, so that a way does not jump over the middle
            edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
            for begin, end in zip(edges[::2], edges[1::2], strict=True):
                side = int(gaps[:, begin:end].max(axis=1).argmin())
                axis, limit = ((0, x1), (0, x2), (1, y1), (1, y2))[side]
                moved[begin:end, axis] = limit
        return moved


def make_street(rng: np.random.Generator) -> Street:
    """A new street: size, doors, cars at the kerb, lamps, benches, trees, bins."""
    half_length = float(rng.uniform(10.5, 13.0))
    half_width = float(rng.uniform(7.0, 8.5))
    road_half = float(rng.uniform(2.2, 2.9))
    return Street(
        half_length,
        half_width,
        road_half,
        tuple(_doors(rng, half_length, half_width)),
        tuple(_props(rng, half_length, half_width, road_half)),
    )


def _doors(rng: np.random.Generator, half_length: float, half_width: float) -> list[Door]:
    doors = []
    for wall, at in (("north", half_width), ("south", half_width)):
        for share in (-0.6, 0.05, 0.65):
            doors.append(Door(wall, (share + float(rng.uniform(-0.12, 0.12))) * half_length, at))
    for wall in ("east", "west"):
        for side in (-1, 1):
            doors.append(Door(wall, side * float(rng.uniform(0.3, 0.65)) * half_width, half_length))
    return doors


def _props(
    rng: np.random.Generator, half_length: float, half_width: float, road_half: float
) -> list[Prop]:
    """Furniture that does not overlap and leaves the doors free."""
    props: list[Prop] = []
    kerb = road_half + 0.7
    wanted = ["car"] * int(rng.integers(1, 3)) + ["lamp"] * 3 + ["tree"] * int(rng.integers(1, 4))
    wanted += ["bench"] * 2 + ["bin"] * int(rng.integers(1, 3))
    for kind in wanted:
        for _ in range(30):
            side = 1.0 if rng.random() < 0.5 else -1.0
            x = float(rng.uniform(-0.8, 0.8)) * half_length
            y = side * (road_half - 1.05 if kind == "car" else kerb)
            prop = _make(rng, kind, x, y, -side)
            if all(_apart(prop, other, 1.6) for other in props):
                props.append(prop)
                break
    return props + [_crown(rng, prop) for prop in props if prop.kind == "tree"]


def _apart(one: Prop, other: Prop, gap: float) -> bool:
    a, b = one.footprint, other.footprint
    return a[0] > b[2] + gap or a[2] < b[0] - gap or a[1] > b[3] + gap or a[3] < b[1] - gap


def _make(rng: np.random.Generator, kind: str, x: float, y: float, facing: float) -> Prop:
    """One prop at (x, y); `facing` is the sign of y towards the road."""
    none = np.zeros((0, 3))
    metal = (62.0, 60.0, 58.0)
    if kind == "car":
        return _car(rng, x, y)
    if kind == "lamp":
        pole = prism(x, y, 0.07, 0.05, 0.0, 4.6, metal)
        foot = prism(x, y, 0.13, 0.11, 0.0, 0.5, metal)
        head = box(x - 0.14, y - 0.14, 4.55, x + 0.14, y + 0.14, 4.85, (205.0, 215.0, 220.0))
        return Prop(kind, (x - 0.14, y - 0.14, x + 0.14, y + 0.14), (pole, foot, head), none)
    if kind == "bench":
        wood = (70.0, 105.0, 140.0)
        back = y - facing * 0.22
        solids = [box(x - 0.8, y - 0.22, 0.40, x + 0.8, y + 0.22, 0.46, wood)]
        solids.append(box(x - 0.8, back - 0.03, 0.55, x + 0.8, back + 0.03, 0.85, wood))
        for end in (-0.7, 0.7):
            solids.append(box(x + end - 0.04, y - 0.2, 0, x + end + 0.04, y + 0.2, 0.42, metal))
            solids.append(
                box(x + end - 0.03, back - 0.03, 0.4, x + end + 0.03, back + 0.03, 0.6, metal)
            )
        return Prop(kind, (x - 0.8, y - 0.3, x + 0.8, y + 0.3), tuple(solids), none)
    if kind == "bin":
        colour = (50.0, 92.0, 52.0) if rng.random() < 0.5 else (88.0, 84.0, 80.0)
        body = prism(x, y, 0.24, 0.28, 0.0, 0.9, colour)
        lid = prism(x, y, 0.29, 0.20, 0.9, 1.0, (48.0, 48.0, 48.0))
        return Prop(kind, (x - 0.28, y - 0.28, x + 0.28, y + 0.28), (body, lid), none)
    trunk = prism(x, y, 0.16, 0.11, 0.0, 3.2, (52.0, 68.0, 84.0))
    return Prop("tree", (x - 0.2, y - 0.2, x + 0.2, y + 0.2), (trunk,), none)


def _crown(rng: np.random.Generator, tree: Prop) -> Prop:
    """The leaves above a tree's trunk: a ball of small discs."""
    x1, y1, x2, y2 = tree.footprint
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    size = np.array(CROWN_M) * rng.uniform(0.75, 1.1)
    spread = rng.normal(0, 1, (LEAVES, 3))
    spread *= (rng.random((LEAVES, 1)) ** 0.35) / np.linalg.norm(spread, axis=1, keepdims=True)
    leaves = spread * size + np.array([x, y, CROWN_Z])
    tint = float(rng.uniform(0.75, 1.15))
    reach = float(size[0])
    return Prop(
        "crown",
        (x - reach, y - reach, x + reach, y + reach),
        (),
        leaves,
        (34.0 * tint, 84.0, 62.0 * tint),
    )


def _car(rng: np.random.Generator, x: float, y: float) -> Prop:
    palette = [
        (200, 200, 200), (60, 58, 56), (120, 118, 115), (130, 70, 40), (40, 40, 140),
        (225, 228, 230),
    ]  # fmt: skip
    colour = tuple(float(part) for part in palette[int(rng.integers(len(palette)))])
    tyre, glass = (32.0, 32.0, 33.0), (78.0, 72.0, 64.0)
    long, wide = 2.15, 0.88
    body = taper(x, y, long, wide, long - 0.08, wide - 0.06, 0.28, 0.86, colour, 0.35)
    sill = box(x - long + 0.1, y - wide + 0.05, 0.18, x + long - 0.1, y + wide - 0.05, 0.3, tyre)
    cabin = taper(x - 0.15, y, 1.35, wide - 0.08, 0.85, wide - 0.26, 0.86, 1.36, glass, 0.8)
    roof = taper(x - 0.15, y, 0.88, wide - 0.24, 0.80, wide - 0.30, 1.35, 1.42, colour, 0.35)
    solids = [body, sill, cabin, roof]
    for along in (-1.32, 1.32):
        for side in (-1.0, 1.0):
            at = y + side * (wide - 0.12)
            solids.append(wheel(x + along, at, 0.31, 0.13, tyre))
            solids.append(wheel(x + along, at, 0.17, 0.135, (150.0, 150.0, 152.0)))
    for end, light in ((1.0, (225.0, 232.0, 235.0)), (-1.0, (40.0, 40.0, 170.0))):
        for side in (-0.62, 0.62):
            front = x + end * (long - 0.04)
            solids.append(
                box(front - 0.06, y + side - 0.16, 0.6, front + 0.03, y + side + 0.16, 0.74, light)
            )
    return Prop("car", (x - long, y - wide, x + long, y + wide), tuple(solids), np.zeros((0, 3)))


Colour = tuple[float, ...]


def box(x1: float, y1: float, z1: float, x2: float, y2: float, z2: float, colour: Colour) -> Solid:
    """An upright box between two corners."""
    return taper(
        (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2, (x2 - x1) / 2, (y2 - y1) / 2,
        z1, z2, colour, 0.0,
    )  # fmt: skip


def taper(
    x: float, y: float, half_x: float, half_y: float, top_x: float, top_y: float,
    z1: float, z2: float, colour: Colour, gloss: float,
) -> Solid:  # fmt: skip
    """A box whose top may be smaller than its bottom."""
    low = [(x + i * half_x, y + j * half_y, z1) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    high = [(x + i * top_x, y + j * top_y, z2) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return _between(np.array(low), np.array(high), colour, gloss)


def prism(
    x: float, y: float, low_radius: float, high_radius: float, z1: float, z2: float, colour: Colour
) -> Solid:
    """An upright cylinder or cone of twelve sides."""
    turn = np.arange(12) * (np.pi / 6)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    low = np.column_stack([ring * low_radius + [x, y], np.full(12, z1)])
    high = np.column_stack([ring * high_radius + [x, y], np.full(12, z2)])
    return _between(low, high, colour, 0.1)


def wheel(x: float, y: float, radius: float, half: float, colour: Colour) -> Solid:
    """A wheel that rolls along x and stands on the ground 0.31 m below its middle."""
    turn = np.arange(16) * (np.pi / 8)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius + [x, 0.31]
    sides = [np.column_stack([ring[:, 0], np.full(16, y + s * half), ring[:, 1]]) for s in (1, -1)]
    return _between(sides[0], sides[1], colour, 0.0)


def _between(low: Array, high: Array, colour: Colour, gloss: float) -> Solid:
    """The convex body between two rings of the same number of corners."""
    centre = (low.mean(axis=0) + high.mean(axis=0)) / 2
    count = len(low)
    faces = [low[:3], high[:3]]
    faces += [np.array([low[k], low[(k + 1) % count], high[k]]) for k in range(count)]
    first, second, third = np.array(faces).transpose(1, 0, 2)
    normals = np.cross(second - first, third - first)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    offsets = (normals * first).sum(axis=1)
    flip = normals @ centre > offsets
    normals[flip] *= -1
    offsets[flip] *= -1
    blue, green, red = colour
    return Solid(normals, offsets, np.concatenate([low, high]), (blue, green, red), gloss)
