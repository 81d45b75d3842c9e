"""A plan: gradual unfreezing (arXiv:1801.06146, section 3.3).

`gradual` trains the head, then the last stage with it, then one stage more in each phase, until all of them train;
`gradual:N` stops after N stages.
"""

from zoo.errors import ConfigError
from zoo.training.rules import HEAD, REST_FROZEN, REST_TRAINS


def gradual(stages, argument):
    depth = len(stages) if not argument else int(argument) if argument.isdigit() else 0
    if not 0 < depth <= len(stages):
        raise ConfigError(f"the number of stages must be from 1 to {len(stages)}, as in gradual:1")
    phases = [(HEAD, REST_FROZEN)]
    for count in range(1, depth + 1):
        rules = [rule for stage in stages[-count:] for rule in stage.at(1.0)]
        phases.append((HEAD, *rules, REST_FROZEN) if count < len(stages) else (REST_TRAINS,))
    return phases
