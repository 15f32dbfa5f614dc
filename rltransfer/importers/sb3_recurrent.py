"""The network of RecurrentPPO's policies, which remember each row."""

from __future__ import annotations

from torch import Tensor, nn

from rltransfer.importers.memory import Memory
from rltransfer.importers.sb3_networks import extracted_by, log_std_by
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput


class RecurrentActorCritic(nn.Module):
    """Extractor, LSTM, hidden layers and head, before the action bounds.

    Attributes:
        value_extractor: The convolutions or flattening of the value.
        value_layer: From what these extract to the input of `value_hidden`; None if that is the
            output of the LSTM.
        value_hidden: The hidden layers of the value.
        value_head: The last layer of the value; None if the critic has a separate LSTM. A second
            state would be needed for it, and nothing is learned from a teacher's value.
    """

    def __init__(
        self,
        extractor: nn.Module,
        memory: Memory,
        hidden: nn.Module,
        head: nn.Linear,
        log_std: nn.Module | None,
        discrete: bool,
    ) -> None:
        """Creates the policy from its parts, without a value.

        Args:
            extractor: Convolutions or flattening.
            memory: The LSTM.
            hidden: The hidden layers.
            head: The last layer.
            log_std: From the last hidden layer to the log standard deviation of continuous actions.
            discrete: Whether actions are discrete.
        """
        super().__init__()
        self.extractor = self.value_extractor = extractor
        self.memory = memory
        self.hidden = hidden
        self.action_head = head
        self.log_std = log_std
        self.discrete = discrete
        self.value_layer: nn.Module | None = None
        self.value_hidden: nn.Module = nn.Sequential()
        self.value_head: nn.Module | None = None

    def forward(
        self,
        inputs: Tensor,
        needs: Needs = EMPTY,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> PolicyOutput:
        """The distribution parameters, the last hidden layer, the state and perhaps the value.

        Args:
            inputs: The output of `Inputs`.    (batch, ...)
            needs: See `Policy`.
            state: The state before; see `Memory`.    (batch, state_size)
            start: Whether a row is an episode's first.    (batch,)
        """
        extracted, maps = extracted_by(self.extractor, inputs, needs)
        remembered, after = self.memory(extracted, state, start)
        features = self.hidden(remembered)
        scores = self.action_head(features)
        output = PolicyOutput(features=features, state=after)
        if self.discrete:
            output.logits = scores
        else:
            output.mean = scores
            output.log_std = log_std_by(self.log_std, features, scores)
        if self.value_head is not None:
            if self.value_layer is not None:
                if self.value_extractor is not self.extractor:
                    extracted = self.value_extractor(inputs)
                remembered = self.value_layer(extracted)
            output.value = self.value_head(self.value_hidden(remembered)).squeeze(-1)
        output.add_maps(maps, needs)
        return output
