#!/usr/bin/python3
"""The model's owner.      owner.py FOLDER"""

import sys

import language
from harness import options_of
from model import NAME, build, remote_names

model = build(options_of(sys.argv[1]))
language.owner(sys.argv[1], NAME, model, remote_names(model), ridge=0.1)
