import mnistlab_torchvision
from mnistlab_torchvision.transforms import COLOURED, DETERMINISTIC, OFFERED, record_name

from mnistlab.api import ImageShape
from mnistlab.testing import ChannelsLastContract, ModelContract, PluginContract, TransformContract

COLOURS = {record_name(cls) for cls in COLOURED}


class TestContract(PluginContract, ChannelsLastContract):
    plugin = mnistlab_torchvision
    names = {"torchvision", *map(record_name, OFFERED)} - COLOURS
    fixed = {"torchvision": {"architecture": "shufflenet_v2_x0_5"}}
    samples = 1


class SmallModel(ModelContract):
    plugin = mnistlab_torchvision
    names = {"torchvision"}
    shapes = (ImageShape(1, 8, 8, 10),)
    samples = 1
    test_importing_it_has_no_side_effects = None  # a process takes seconds, and the class above starts it


class TestMobileNet(SmallModel):
    fixed = {"torchvision": {"architecture": "mobilenet_v3_small"}}


class TestRegNet(SmallModel):
    fixed = {"torchvision": {"architecture": "regnet_y_400mf"}}


class TestColours(TransformContract):
    """Transforms that change colours only; grey images they refuse."""

    plugin = mnistlab_torchvision
    names = COLOURS
    deterministic = DETERMINISTIC
    shapes = (ImageShape(3, 32, 32, 7), ImageShape(3, 8, 8, 10))
    samples = 1
    test_importing_it_has_no_side_effects = None
