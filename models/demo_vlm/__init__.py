# SPDX-License-Identifier: Apache-2.0
"""The demo model that sees: pictures made by program, the training on them, and the folder that is served."""
