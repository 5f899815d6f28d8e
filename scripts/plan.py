"""Read the fingerprint of a data set and write a configuration that trains on it."""

from __future__ import annotations

from seg.cli import parse_plan, run


def main() -> None:
    """Runs the command line."""
    arguments = parse_plan()
    # Imported only now: --help and wrong use need no torch.
    from seg.files import write_text
    from seg.planning import plan_dataset

    text = plan_dataset(
        arguments.data_root,
        layout=arguments.layout,
        memory_gib=arguments.memory_gib,
        patient_pattern=arguments.patient_pattern,
    )
    if arguments.output is None:
        print(text, end="")
    else:
        write_text(arguments.output, text)
        print(f"configuration: {arguments.output}")


if __name__ == "__main__":
    run(main)
