# What build.sh and check.sh share: a storage of their own, and runc without what a machine in a container lacks. To be sourced.
work="$PWD/target/image"
mkdir -p "$work"
cat >"$work/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "/run/jobgate-image"
CONF
cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
export CONTAINERS_STORAGE_CONF="$work/storage.conf" CONTAINERS_CONF="$work/containers.conf"
export BUILDAH_RUNTIME=runc
network=(--network host)
