# SPDX-License-Identifier: Apache-2.0
"""`vllm serve` of builds whose package has another name, as that for CPUs.

`python -m scripts.bench.vllm_serve serve MODEL ...`. vLLM's own command asks for the version of the package `vllm`
first, and fails.
"""


def main() -> None:
    """Run the subcommand `serve` as vLLM's own command does."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()  # type: ignore[no-untyped-call] # vLLM's
    parser, command = FlexibleArgumentParser(), ServeSubcommand()  # type: ignore[no-untyped-call] # vLLM's
    command.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
    arguments = parser.parse_args()
    command.validate(arguments)
    command.cmd(arguments)


if __name__ == "__main__":
    main()
