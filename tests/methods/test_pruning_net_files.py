"""PruningNets in files: read back as they were, and refused where their parts do not fit."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from metaprune_cli.artifacts import read_artifact, write_artifact
from metaprune_cli.config import PruningNetSettings
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph import encode
from metaprune_cli.methods.pruning_net.files import PruningNets, from_artifact, to_parts
from metaprune_cli.methods.pruning_net.training import untrained
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.ranking import plain_limits
from metaprune_cli.pruning.width_space import WidthSpace

ARCH = Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1, "image_size": 8}, (1, 8, 8))


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model, inputs = build(ARCH).eval(), torch.zeros(1, 1, 8, 8)
    graph = encode(model, inputs)
    space = WidthSpace.of(graph, plain_limits(graph.units, 0.75), torch.rand(graph.units.num_units))
    net = untrained(model, graph, space, Crops.of(model, graph, inputs), PruningNetSettings(hidden=4))
    with torch.no_grad():
        for parameter in net.generator.parameters():
            parameter.normal_(std=0.1)
    tensors, document = to_parts(net)
    return net.eval(), tensors, json.loads(json.dumps(document | {"architecture": ARCH.to_document()}))


def read_back(tmp_path, tensors, document):
    path = tmp_path / "net.safetensors"
    write_artifact(path, "hypernetwork", tensors, document)
    return from_artifact(read_artifact(path, "hypernetwork"), allow_import=False)


def test_what_is_read_is_what_was_written(tmp_path, parts):
    net, tensors, document = parts
    again = read_back(tmp_path, tensors, document)
    assert again.config == net.config
    assert again.space.grids == net.space.grids
    batch = torch.randn(4, 1, 8, 8)
    assert all(torch.equal(net(batch), again(batch)) for _ in range(3))
    genes = net.space.smallest()
    assert torch.equal(net.network(genes)(batch), again.network(genes)(batch))


def test_it_is_a_method_with_files(tmp_path, parts):
    net, tensors, document = parts
    path = tmp_path / "net.safetensors"
    write_artifact(path, "hypernetwork", tensors, document)
    files = PruningNets()
    artifact = read_artifact(files.find(path), "hypernetwork")
    assert files.facts(artifact) == {"generator": "full", "hidden": 4, "genes": len(net.space.grids)}
    graph = encode(build(ARCH).eval(), torch.zeros(1, 1, 8, 8))
    files.open(artifact).propose(graph).check_fits(graph)
    assert files.shipped() == []
    with pytest.raises(InputError):
        files.find(tmp_path / "none.safetensors")


def _set(document, path, value):
    *way, last = path
    for key in way:
        document = document[key]
    document[last] = value


DOCUMENTS = {
    "a method of another kind": (("method",), "dhp", "method"),
    "a form that is none": (("config", "generator"), "huge", r"config\.generator"),
    "a field that is none": (("config", "extra"), 1, r"config\.extra"),
    "directions without end": (("config", "hidden"), 1 << 40, r"config\.hidden"),
    "other directions": (("config", "hidden"), 5, r"generator/slope: expected finite numbers of shape"),
    "another form": (("config", "generator"), "factored", r"generator/directions\.\d+: missing|expected finite"),
    "no form": (("config", "generator"), "shared", "not a parameter of this generator"),
    "a grid that falls": (("genes", 0, "grid"), [4, 2], r"genes\.0"),
    "a grid beyond all units": (("genes", 0, "grid"), [1, 1000], r"genes\.0\.grid: expected at most"),
    "no grid": (("genes", 0, "grid"), [], r"genes\.0\.grid"),
    "a family that is not there": (("genes", 0, "families"), [10**5], r"genes\.0: expected families"),
    "a family twice": (("genes", 0, "families"), [0, 0], r"genes\.0: expected families"),
    "families of different sizes": (("genes", 0, "families"), [0, 5], r"order/0|genes\.\d"),
    "no genes": (("genes",), [], "genes"),
    "other families": (("signature",), [{"name": "x", "units": 3}], "signature: expected"),
    "a speed-up below one": (("sampling", "speedup_max"), 0.5, r"sampling\.speedup_max"),
    "a route that is none": (("route",), "auto", "route"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents_that_do_not_fit_are_refused(tmp_path, parts, case):
    _, tensors, document = parts
    path, value, named = DOCUMENTS[case]
    document = copy.deepcopy(document)
    _set(document, path, value)
    with pytest.raises(CorruptFileError, match=named):
        read_back(tmp_path, tensors, document)


TENSORS = {
    "no order": ("order/0", None, "order: expected one tensor for each"),
    "an order of floats": ("order/0", lambda t: t.float(), "order/0"),
    "a unit twice": ("order/0", torch.zeros_like, "order/0: expected every unit"),
    "a unit that is none": ("order/0", lambda t: t - 10**9, "order/0: expected every unit"),
    "not a number": ("generator/slope", lambda t: t * torch.nan, "generator/slope: expected finite"),
    "no slope": ("generator/slope", None, "generator/slope: missing"),
    "other numbers": ("generator/offset", lambda t: t.double(), "generator/offset"),
    "one too many": ("generator/more", lambda _: torch.zeros(1), "generator/more: not a parameter"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused(tmp_path, parts, case):
    _, tensors, document = parts
    name, change, named = TENSORS[case]
    changed = {entry: tensor for entry, tensor in tensors.items() if entry != name}
    if change is not None:
        changed[name] = change(tensors.get(name))
    with pytest.raises(CorruptFileError, match=named):
        read_back(tmp_path, changed, document)


def test_base_weights_that_are_missing_are_listed(tmp_path, parts):
    _, tensors, document = parts
    fewer = {name: tensor for name, tensor in tensors.items() if name != "base/conv1.weight"}
    with pytest.raises(InputError, match=r"1 missing: conv1\.weight"):
        read_back(tmp_path, fewer, document)
