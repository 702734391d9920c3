"""The pursuit in plain Python: one predator at a time, angles by sorting."""

import math

STAY, TOWARDS, COUNTER_CLOCKWISE, AWAY, CLOCKWISE = range(5)


def polar(prey, predators):
    """Distances and angles of the predators from the prey, angles clockwise from the y axis."""
    distances = [math.hypot(x - prey[0], y - prey[1]) for x, y in predators]
    angles = [math.atan2(x - prey[0], y - prey[1]) % (2 * math.pi) for x, y in predators]
    return distances, angles


def clockwise_gaps(angles):
    """For each predator the angle to the next one clockwise, and who that is."""
    order = sorted(range(len(angles)), key=lambda i: angles[i])
    gaps, following = [0.0] * len(angles), [0] * len(angles)
    for place, i in enumerate(order):
        j = order[(place + 1) % len(order)]
        gaps[i] = angles[j] - angles[i] + (2 * math.pi if place + 1 == len(order) else 0)
        following[i] = j
    return gaps, following


def prey_move(prey, predators, chance, heading):
    """The prey's step."""
    distances, angles = polar(prey, predators)
    gaps, _ = clockwise_gaps(angles)
    nearest = distances.index(min(distances))
    if distances[nearest] >= 10:
        speed, way = (1.0 if chance < 0.1 else 0.0), heading
    elif max(gaps) >= math.radians(108):
        edge = gaps.index(max(gaps))
        speed, way = 1.2, angles[edge] + gaps[edge] / 2
    elif max(distances) - min(distances) > 5:
        speed, way = 1.2, angles[nearest] + math.pi
    else:
        speed, way = (1.2 if chance < 0.3 else 0.0), heading
    return speed * math.sin(way), speed * math.cos(way)


def predator_move(prey, predator, action):
    """One predator's step."""
    dx, dy = prey[0] - predator[0], prey[1] - predator[1]
    length = math.hypot(dx, dy)
    forward = math.atan2(dy, dx)  # in the usual convention, counter-clockwise from the x axis
    if action == STAY or length == 0:
        return 0.0, 0.0
    # Facing the prey, counter-clockwise around it is to the right.
    turn = {TOWARDS: 0, COUNTER_CLOCKWISE: -math.pi / 2, AWAY: math.pi, CLOCKWISE: math.pi / 2}[action]
    return math.cos(forward + turn), math.sin(forward + turn)


def step(prey, predators, actions, chance, heading):
    """New positions, reward and whether the prey is caught."""
    moved = [
        (p[0] + m[0], p[1] + m[1])
        for p, m in ((p, predator_move(prey, p, a)) for p, a in zip(predators, actions, strict=True))
    ]
    flight = prey_move(prey, predators, chance, heading)
    prey = prey[0] + flight[0], prey[1] + flight[1]
    caught = min(polar(prey, moved)[0]) < 3
    cost = sum(action != STAY for action in actions) / (75 * len(predators))
    return prey, moved, float(caught) - cost, caught


def observations(prey, predators, time):
    """The seven features of every predator."""
    distances, angles = polar(prey, predators)
    left, following = clockwise_gaps(angles)
    right = [0.0] * len(angles)
    for i, j in enumerate(following):
        right[j] = left[i]
    turn = 2 * math.pi
    return [
        [
            d / 10,
            (d - min(distances)) / 5,
            (max(distances) - d) / 5,
            right[i] / turn,
            left[i] / turn,
            max(left) / turn,
            time / 75,
        ]
        for i, d in enumerate(distances)
    ]
