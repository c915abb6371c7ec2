"""`ddetr doctor`: is everything installed, and does it compute the right values?"""

from deformable_detr.cli.app import USUAL, MessageFlags, app, print_line


@app.command
def doctor(*, messages: MessageFlags = USUAL) -> int:
    """Print versions, devices and backends, and test the op against its definition."""
    messages.start()

    from deformable_detr.doctor import check_op, describe_system

    for name, value in describe_system():
        print_line(f"{name:<24}{value}")
    failed = False
    for name, problem in check_op():
        print_line(f"{'self-test':<24}{name}: {problem or 'agrees with the definition'}")
        failed = failed or problem is not None
    return 1 if failed else 0
