# Shell functions that get and start what belayd works with: packages, PostgreSQL, Redis, Kafka. Sourced by tests/run and by
# examples/scale-out/run, in bash with `set -euo pipefail`.
#
# In: `work`, a folder for logs and data. Out: `found_port` and the `…_pid` of each server, a child of the shell that asked for it.
# Nothing is stopped here: whoever starts a server ends it by its process id.

say() { printf '%s\n' "$*"; }

# --- packages ------------------------------------------------------------------------------------------------------------------
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}"); }
# OpenSSL's headers, for TLS to Kafka.
need_openssl() { pkg-config --exists openssl 2>/dev/null || packages+=(pkg-config libssl-dev); }
need_postgres() {
    [ -n "$(find /usr/lib/postgresql -name initdb 2>/dev/null | head -1)" ] || command -v initdb >/dev/null 2>&1 || packages+=(postgresql)
}
# A real Kafka: its jars come by Maven.
need_kafka() {
    need java default-jre-headless
    [ -n "$(find "$(kafka_folder)" -name 'kafka_2.13-*.jar' 2>/dev/null)" ] || need mvn maven
}
# Installs what is missing, as root or with sudo; otherwise it only says so.
install_missing() {
    [ ${#packages[@]} -gt 0 ] || return 0
    say "missing: ${packages[*]}"
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    else
        say "they cannot be installed without root; apt-get install ${packages[*]}"
    fi
}

# --- ports ---------------------------------------------------------------------------------------------------------------------
# Sets `found_port` to one that nobody listens on now and that was not given out before; bash itself can only connect.
given_out=" "
find_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 12000))
        case $given_out in *" $port "*) continue ;; esac
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
        given_out+="$port "
        found_port=$port
        return 0
    done
    return 1
}
# Waits until process $1 listens on port $2, at most 3 min: a machine that does much else takes its time to start a JVM.
wait_for_port() {
    for _ in $(seq 1800); do
        kill -0 "$1" 2>/dev/null || return 1
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return 0
        sleep 0.1
    done
    return 1
}
# What stands before each server's command line; the caller may give its own. It must exec, so that the process id is the server's.
launcher=()

# --- PostgreSQL ----------------------------------------------------------------------------------------------------------------
as_user=()
find_postgres() {
    postgres_bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -1)
    [ -n "$postgres_bin" ] || postgres_bin=$(dirname "$(readlink -f "$(command -v initdb)")") || return 1
    if [ "$(id -u)" = 0 ]; then
        # PostgreSQL refuses to run as root.
        local user=postgres
        id "$user" >/dev/null 2>&1 || user=nobody
        as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
        chown "$user" "$1"
    fi
}
# Makes a cluster in the folder $1.
init_postgres() {
    mkdir -p "$1" && find_postgres "$1" || return 1
    "${as_user[@]}" "$postgres_bin/initdb" --auth=trust --username=belayd --encoding=UTF8 --locale=C --no-sync -D "$1/data" \
        >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log"; return 1; }
}
# Starts the cluster of folder $1 on port $2 with further settings; sets `postgres_pid`.
launch_postgres() {
    local folder=$1 port=$2 settings=() setting
    shift 2
    for setting in "$@"; do settings+=(-c "$setting"); done
    # Exec in the background, so that the process id is the server's own.
    "${as_user[@]}" "${launcher[@]}" "$postgres_bin/postgres" -D "$folder/data" -c listen_addresses=127.0.0.1 -c port="$port" \
        -c unix_socket_directories= "${settings[@]}" >>"$work/postgres.log" 2>&1 &
    postgres_pid=$!
}
# Waits until it answers, at most 60 s.
wait_for_postgres() {
    for _ in $(seq 600); do
        kill -0 "$postgres_pid" 2>/dev/null || return 1
        "$postgres_bin/pg_isready" -q -h 127.0.0.1 -p "$1" && return 0
        sleep 0.1
    done
    return 1
}

# --- Redis ---------------------------------------------------------------------------------------------------------------------
# Starts one on port $2 that keeps everything in folder $1 and syncs before it answers; sets `redis_pid`.
launch_redis() {
    mkdir -p "$1"
    "${launcher[@]}" redis-server --bind 127.0.0.1 --port "$2" --dir "$1" --save "" --appendonly yes --appendfsync always \
        >>"$work/redis.log" 2>&1 &
    redis_pid=$!
}

# --- Kafka ---------------------------------------------------------------------------------------------------------------------
kafka_folder() { printf '%s' "${BELAYD_TEST_KAFKA:-${XDG_CACHE_HOME:-$HOME/.cache}/belayd-tests/kafka}"; }
# The jars, by Maven where they are not there yet; sets BELAYD_TEST_KAFKA.
get_kafka() {
    BELAYD_TEST_KAFKA=$(kafka_folder)
    export BELAYD_TEST_KAFKA
    [ -z "$(find "$BELAYD_TEST_KAFKA" -name 'kafka_2.13-*.jar' 2>/dev/null)" ] || return 0
    command -v mvn >/dev/null || return 1
    say "getting Kafka into $BELAYD_TEST_KAFKA"
    # Into place only when it is whole.
    mvn -q -B -f "$(dirname "${BASH_SOURCE[0]}")/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$work/kafka-jars" >"$work/mvn.log" 2>&1 || { tail -20 "$work/mvn.log"; return 1; }
    mkdir -p "$BELAYD_TEST_KAFKA" && mv "$work"/kafka-jars/*.jar "$BELAYD_TEST_KAFKA"/
}
# --- mail ----------------------------------------------------------------------------------------------------------------------
# A Python with aiosmtpd, where there is none yet; sets BELAYD_TEST_MAIL.
get_mail() {
    BELAYD_TEST_MAIL=${BELAYD_TEST_MAIL:-${XDG_CACHE_HOME:-$HOME/.cache}/belayd-tests/mail}
    export BELAYD_TEST_MAIL
    "$BELAYD_TEST_MAIL/bin/python" -c 'import aiosmtpd' 2>/dev/null && return 0
    say "making a Python with a mail server in $BELAYD_TEST_MAIL"
    python3 -m venv --clear "$BELAYD_TEST_MAIL" 2>/dev/null || return 1
    "$BELAYD_TEST_MAIL/bin/pip" install -q -r "$(dirname "${BASH_SOURCE[0]}")/mail/requirements.txt" 2>/dev/null
}

kafka_java() {
    exec "${launcher[@]}" java "$1" -Xshare:auto -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$BELAYD_TEST_KAFKA/*" "${@:2}"
}
# Formats folder $1 for one broker in KRaft mode that listens on port $2, its controller on port $3.
init_kafka() {
    mkdir -p "$1"
    cat >"$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
log.dirs=$1/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
default.replication.factor=1
initial.broker.registration.timeout.ms=20000
PROPERTIES
    (kafka_java -Xmx64m kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$1/server.properties") >"$work/kafka.log" 2>&1 \
        || { tail -20 "$work/kafka.log"; return 1; }
}
# Starts the broker of folder $1; sets `kafka_pid`.
launch_kafka() {
    (kafka_java -Xmx256m kafka.Kafka "$1/server.properties") >>"$work/kafka.log" 2>&1 &
    kafka_pid=$!
}
