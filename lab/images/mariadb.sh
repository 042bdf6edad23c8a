# MariaDB with an empty database in memory. MARIADB_ROOT_PASSWORD: of the user root, from anywhere.
set -eu
data=$(mktemp -d)
mariadb-install-db --no-defaults --datadir="$data" --auth-root-authentication-method=normal --skip-test-db > /dev/null
cat > "$data/init.sql" <<SQL
CREATE USER root@'%' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
exec mariadbd --no-defaults --datadir="$data" --socket="$data/socket" --bind-address=0.0.0.0 --init-file="$data/init.sql" \
  --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=16M --skip-name-resolve
