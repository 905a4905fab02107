#!/usr/bin/python3
"""The application.      client.py URL FOLDER"""

import sys

import language
from harness import options_of
from model import NAME, build, remote_names

options = options_of(sys.argv[2])
model = build(options)
language.client(sys.argv[1], sys.argv[2], NAME, model, remote_names(model, options))
