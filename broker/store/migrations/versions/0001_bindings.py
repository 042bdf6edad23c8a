"""The bindings and their audit records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "bindings",
        sa.Column("binding_id", sa.String(255), primary_key=True),
        sa.Column("instance_id", sa.String(255), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("consumer_id", sa.Text()),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("route", sa.JSON()),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("applied", sa.Integer(), nullable=False),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.Column("attempted", sa.JSON()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("virtual_ips", sa.JSON()),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("bindings_of_a_shard", "bindings", ["shard"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("user", sa.Text()),
        sa.Column("originating_identity", sa.Text()),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("instance_id", sa.String(255), nullable=False),
        sa.Column("binding_id", sa.String(255), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
    )
    op.create_index("audit_of_a_binding", "audit", ["binding_id"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("audit")
    op.drop_table("bindings")
