"""Reads a log directory as TensorBoard's own servers do.

There are two: one in Python, and the data server, a binary that TensorBoard uses where it is
installed. They keep different parts of what a run wrote.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data.server_ingester import SubprocessServerDataIngester, get_server_binary
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from tensorboard.util.grpc_util import ChannelCredsType

Table = dict[str, dict[str, Any]]


def python_server(logdir: Path) -> TBContext:
    """What TensorBoard's own server in Python reads."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return _context(logdir, MultiplexerDataProvider(multiplexer, str(logdir)))


def assert_data_server_reads(
    logdir: Path, read: Callable[[TBContext], Any], expected: Any, seconds: float = 30.0
) -> None:
    """Waits until the data server has read what is expected, as the server in Python has."""
    pytest.importorskip("tensorboard_data_server")
    ingester = SubprocessServerDataIngester(
        get_server_binary(), str(logdir), reload_interval=1,
        channel_creds_type=ChannelCredsType.LOCAL,
    )  # fmt: skip
    ingester.start()
    until = time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(KeyError):  # it has not read as much yet
                found = read(_context(logdir, ingester.data_provider))
                if found == expected or time.monotonic() > until:
                    break
            time.sleep(0.05)
        assert found == expected
    finally:
        ingester._stdin_handle.close()  # ends the server


def _context(logdir: Path, provider: Any) -> TBContext:
    context = TBContext(logdir=str(logdir), data_provider=provider, plugin_name_to_instance={})
    context.plugin_name_to_instance["scalars"] = ScalarsPlugin(context)
    return context


def hparams_table(server: TBContext) -> tuple[Table, Table, list[str]]:
    """The rows of the HParams tab: hyperparameters and metrics by run, and the metrics in order."""
    request, context = RequestContext(), Context(server)
    experiment = GetExperiment(
        request, context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, include_metrics=True,
        allowed_statuses=list(api_pb2.Status.values()),
    )  # fmt: skip
    groups = ListSessionGroups(request, context, "", asked).run().session_groups
    settings: Table = {}
    metrics: Table = {}
    for group in groups:
        assert len(group.sessions) == 1
        settings[group.name] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()
        }
        metrics[group.name] = {one.name.tag: one.value for one in group.metric_values}
    return settings, metrics, [one.name.tag for one in experiment.metric_infos]


def charts(server: TBContext) -> dict[str, dict[str, list[str]]]:
    """The tags that each run shows in each chart under "Custom Scalars"."""
    plugin, request = CustomScalarsPlugin(server), RequestContext()
    layout = json.loads(plugin.layout_impl(request, ""))
    runs = [run.run_name for run in server.data_provider.list_runs(request, experiment_id="")]
    found: dict[str, dict[str, list[str]]] = {}
    for chart in (chart for category in layout["category"] for chart in category["chart"]):
        assert chart["title"] not in found
        found[chart["title"]] = {
            run: [
                tag
                for pattern in chart["multiline"]["tag"]
                for tag in plugin.scalars_impl(request, run, pattern, "")["tag_to_events"]
            ]
            for run in runs
        }
    return found


def descriptions(server: TBContext, run: str) -> dict[str, str]:
    """The descriptions of a run's scalars, histograms and pictures, by tag."""
    provider, request = server.data_provider, RequestContext()
    listed = [
        provider.list_scalars(request, experiment_id="", plugin_name="scalars"),
        provider.list_tensors(request, experiment_id="", plugin_name="histograms"),
        provider.list_blob_sequences(request, experiment_id="", plugin_name="images"),
    ]
    return {tag: one.description for each in listed for tag, one in each.get(run, {}).items()}


def events_of(run_dir: Path) -> EventAccumulator:
    """A run's events, all of them."""
    events = EventAccumulator(str(run_dir), {"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    return events
