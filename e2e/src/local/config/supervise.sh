# Keeps a daemon running in a cgroup of its own, as a service manager would. The folder for
# cgroups is $CGROUP, for logs $HOME_FOLDER/logs. Sourced by worker.sh and control.sh.
set -u
supervise() {
  local name=$1
  shift
  : >"$HOME_FOLDER/logs/$name.log"
  while :; do
    (
      echo 0 >"$CGROUP/$name/cgroup.procs"
      exec "$@" >>"$HOME_FOLDER/logs/$name.log" 2>&1 </dev/null
    )
    sleep 1
  done &
}
