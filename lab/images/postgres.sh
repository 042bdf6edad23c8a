# PostgreSQL with an empty database in memory. POSTGRES_PASSWORD: of the user postgres.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
data=$(mktemp -d)
printf '%s\n' "$POSTGRES_PASSWORD" > "$data.password"
"$bin/initdb" --no-sync --username=postgres --auth=scram-sha-256 --pwfile="$data.password" --encoding=UTF8 \
  --locale=C.UTF-8 -D "$data" > /dev/null
rm "$data.password"
echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
exec "$bin/postgres" -D "$data" -c 'listen_addresses=*' -c unix_socket_directories=/tmp -c fsync=off \
  -c max_connections=600 -c shared_buffers=32MB
