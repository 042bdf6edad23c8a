"""What the upstream still works on, so that nothing depends on the platform's polls."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and indexes."""
    with op.batch_alter_table("bindings") as bindings:
        bindings.add_column(sa.Column("operation", sa.Text()))
        bindings.add_column(
            sa.Column("with_instance", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        bindings.add_column(sa.Column("unanswered_at", sa.DateTime(timezone=True)))
    op.create_index("bindings_of_an_instance", "bindings", ["instance_id"])
    op.create_index("audit_of_an_instance", "audit", ["instance_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("audit_of_an_instance", "audit")
    op.drop_index("bindings_of_an_instance", "bindings")
    with op.batch_alter_table("bindings") as bindings:
        bindings.drop_column("unanswered_at")
        bindings.drop_column("with_instance")
        bindings.drop_column("operation")
