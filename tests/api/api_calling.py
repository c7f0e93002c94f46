"""What the calls of the Python API are tried on."""

from __future__ import annotations

import torch

import metaprune as mp

DIGITS = mp.DataSettings(train_limit=120, batch_size=40)
EXAMPLE = torch.zeros(1, 1, 8, 8)
