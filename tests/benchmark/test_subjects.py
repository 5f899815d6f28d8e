"""What is counted of networks, against torch and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seg.benchmark.peers import basic_channels, build_peer, peer_problem
from seg.benchmark.subjects import Runtime, Subject, with_peers
from seg.config import NetworkConfig
from seg.networks.conv import Conv3d
from seg.runs import save_weights

THREE = NetworkConfig(
    channels=(4, 6, 8), strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)), kernel_sizes=((3, 3, 3), (3, 3, 3), (3, 3, 3))
)


@pytest.fixture
def deep(subject: Subject) -> Subject:
    patches = replace(subject.config.patches, size=(32, 16, 16))
    return replace(subject, config=replace(subject.config, network=THREE, patches=patches))


@pytest.mark.parametrize("peer", [None, "dynunet", "basicunet"])
def test_work_is_what_torch_counts_in_a_pass(deep: Subject, peer: Any) -> None:
    own = replace(deep, peer=peer)
    with FlopCounterMode(display=False) as counter:
        out = own.network()(torch.zeros(1, 1, 32, 16, 16))
    assert out.shape == (1, 2, 32, 16, 16)
    assert own.macs() == counter.get_total_flops() / 2


def test_a_peer_has_the_stages_of_the_plan(deep: Subject) -> None:
    network = build_peer("dynunet", THREE, 1, 2)
    shapes = {tuple(p.shape[:2]) for name, p in network.named_parameters() if "downsamples" in name and p.ndim == 5}
    assert shapes == {(6, 4), (6, 6)}  # the last stage is its bottleneck
    assert basic_channels((16, 32, 64, 128)) == (16, 32, 64, 128, 256, 16)
    assert basic_channels((32, 64, 128, 256, 320, 320)) == (32, 64, 128, 256, 320, 32)
    assert basic_channels((200, 400)) == (200, 400, 400, 400, 400, 200)


def test_peers_come_in_the_precision_of_the_run_and_in_fp32(
    deep: Subject, subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    assert [
        (one.name, one.peer, one.precision, one.run_dir) for one in with_peers(replace(deep, run_dir=Path("run")))
    ] == [
        ("dynunet", "dynunet", None, None),
        ("dynunet fp32", "dynunet", "fp32", None),
        ("dynunet as shipped", "dynunet", "fp32", None),
        ("basicunet", "basicunet", None, None),
        ("basicunet fp32", "basicunet", "fp32", None),
        ("basicunet as shipped", "basicunet", "fp32", None),
    ]
    assert caplog.messages == []
    kinds = [{type(m) for m in one.network().modules() if isinstance(m, nn.Conv3d)} for one in with_peers(deep)[:3]]
    assert kinds == [{Conv3d}, {Conv3d}, {nn.Conv3d}]
    assert with_peers(subject) == []
    assert [message.partition(":")[0] for message in caplog.messages] == ["dynunet", "basicunet"]


def test_what_a_peer_refuses_is_left_out_and_the_rest_runs(deep: Subject) -> None:
    small = replace(deep.config, patches=replace(deep.config.patches, size=(16, 16, 16)))
    assert peer_problem("basicunet", small) is not None
    network = build_peer("basicunet", THREE, 1, 2)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        network(torch.zeros(1, 1, 16, 16, 16))
    network(torch.zeros(1, 1, 32, 16, 16))


def test_a_network_is_initial_or_trained(subject: Subject, write_run: Any) -> None:
    run_dir = write_run(replace(subject, config=replace(subject.config, seed=3)), "run")
    own = replace(subject, run_dir=run_dir)
    first = torch.cat([p.flatten() for p in own.network().parameters()])
    initial = torch.cat([p.detach().flatten() for p in subject.network().parameters()])
    fresh = own.network(trained=False)
    assert not torch.equal(first, initial)
    assert torch.equal(torch.cat([p.detach().flatten() for p in fresh.parameters()]), initial)
    assert (own.network().training, fresh.training) == (False, True)
    assert not any(p.requires_grad for p in own.network().parameters())
    assert all(p.requires_grad for p in fresh.parameters())


def test_the_size_of_a_checkpoint_is_that_of_its_file(subject: Subject, tmp_path: Path) -> None:
    network = subject.network()
    names = {"channel_names": subject.channel_names, "class_names": subject.class_names}
    assert subject.checkpoint_mib(network) == save_weights(network, tmp_path, **names).stat().st_size / 2**20


def test_a_fingerprint_is_the_one_that_published_speeds_were_stored_under(narrow: Subject) -> None:
    stored = "55c9bf2db04e42a97e900ceec7cf0d7d57f1f72348e9444d4c5d99260fc4925a"
    assert replace(narrow, name="full").fingerprint() == stored


def test_a_fingerprint_changes_with_what_speed_depends_on_alone(subject: Subject, narrow: Subject) -> None:
    config, own = subject.config, subject.fingerprint()
    same = (
        replace(subject, name="other", run_dir=Path("run")),
        replace(subject, config=replace(config, seed=9, fold=1, data=replace(config.data, root="elsewhere"))),
    )
    other = (
        narrow,
        replace(subject, precision="fp32", config=replace(config, training=replace(config.training, precision="bf16"))),
        replace(subject, config=replace(config, training=replace(config.training, precision="bf16"))),
        replace(subject, config=replace(config, patches=replace(config.patches, batch=1))),
        replace(subject, config=replace(config, patches=replace(config.patches, size=(8, 8, 10)))),
        replace(subject, config=replace(config, inference=replace(config.inference, overlap=0.25))),
        replace(subject, class_names=("background", "box", "corner")),
        replace(subject, peer="dynunet"),
        replace(subject, config=replace(config, loss=replace(config.loss, top_k=0.5))),
        replace(subject, config=replace(config, training=replace(config.training, memory_format="contiguous"))),
    )
    assert {one.fingerprint() for one in same} == {own}
    changed = [one.fingerprint() for one in (*other[:1], *other[2:])]
    assert len({own, *changed}) == 1 + len(changed)
    assert other[1].fingerprint() == own  # it says what the configuration said: fp32


@pytest.mark.parametrize(("kind", "waited"), [("cuda", ["cuda"]), ("mps", ["mps"]), ("cpu", [])])
def test_a_measurement_waits_for_the_device_that_computes(
    kind: str, waited: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: seen.append("mps"))

    Runtime(device=torch.device(kind), precision="fp32").wait()

    assert seen == waited
