"""Routes of the paper to a sparse model, each within the same budget: what a step does at a point of the run.

  full  dense attention from the first step to the last; the index does not learn
  pt    warm-up, then sparse, from the start of the weights
  cpt   warm-up, then sparse, from the weights of a dense checkpoint (--init)

Warm-up is dense attention with the KL loss over all earlier tokens, so that the index learns what to select before
anything is selected. Without a route a preset's own shares of dense and sparse steps hold, stage by stage.
"""

ROUTES = ("full", "pt", "cpt")
WARM_UP = 0.2  # of a run


def check_route(route, init):
    """Raises ValueError where the weights do not fit the route."""
    if route == "cpt" and not init:
        raise ValueError("[training] --route cpt: got no --init, allowed with a dense model folder")


def step_of(route, progress, mixed):
    """(sparse, with KL) of a step; `mixed` is what the preset's stage would have drawn."""
    if route is None:
        return mixed, True
    if route == "full":
        return False, False
    return progress >= WARM_UP, True
