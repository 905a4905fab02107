#!/usr/bin/python3
"""The model's owner.      owner.py FOLDER"""

import sys

import language
from harness import options_of
from model import NAME, build, remote_names

options = options_of(sys.argv[1])
model = build(options)
# ranges matter where activations are remote: a longer text, so that what is called later stays in them
more = {"calibration": 512, "tolerance": options.tolerance} if options.mlp else {}
language.owner(sys.argv[1], NAME, model, remote_names(model, options), **more)
