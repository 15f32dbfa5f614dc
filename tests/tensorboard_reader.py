"""Reads a log directory as TensorBoard's own server does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

Table = dict[str, dict[str, Any]]


def _context(logdir: Path) -> TBContext:
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    context = TBContext(logdir=str(logdir), data_provider=provider, plugin_name_to_instance={})
    context.plugin_name_to_instance["scalars"] = ScalarsPlugin(context)
    return context


def hparams_table(logdir: Path) -> tuple[Table, Table, list[str]]:
    """The rows of the HParams tab: hyperparameters and metrics by run, and the metrics in order."""
    request, context = RequestContext(), Context(_context(logdir))
    found = context.hparams_from_data_provider(request, "", 0)
    every = context.hparams_metadata(request, "")
    experiment = GetExperiment(
        request, context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, include_metrics=True,
        allowed_statuses=list(api_pb2.Status.values()),
    )  # fmt: skip
    assert found is not None and every
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


def charts(logdir: Path) -> dict[str, dict[str, list[str]]]:
    """The tags that each run shows in each chart under "Custom Scalars"."""
    context = _context(logdir)
    plugin, request = CustomScalarsPlugin(context), RequestContext()
    layout = json.loads(plugin.layout_impl(request, ""))
    runs = [run.run_name for run in context.data_provider.list_runs(request, experiment_id="")]
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


def events_of(run_dir: Path) -> EventAccumulator:
    """A run's events, all of them."""
    events = EventAccumulator(str(run_dir), {"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    return events
