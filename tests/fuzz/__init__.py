# SPDX-License-Identifier: Apache-2.0
"""Fuzzing for longer than a test run may take."""
