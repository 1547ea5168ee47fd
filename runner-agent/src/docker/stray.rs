//! Processes of a container that Docker does not know to run.
//!
//! A dockerd that is killed while containerd starts a container for it never learns that it runs. With `live-restore` it leaves the
//! process be when it is back, and refuses every start of the container with "id already in use". Nothing in it is anybody's: its start
//! was never told. So it is ended, and the start is tried again.

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where the cgroups of a host's containers are, by the version of cgroups and Docker's driver.
const PLACES: [(&str, &str); 4] = [
    ("/sys/fs/cgroup/docker/", ""),
    ("/sys/fs/cgroup/system.slice/docker-", ".scope"),
    ("/sys/fs/cgroup/pids/docker/", ""),
    ("/sys/fs/cgroup/pids/system.slice/docker-", ".scope"),
];
/// Of a container's whole id, in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// Kills what runs in the container of this id, and says how many processes that were.
pub(super) fn end(id: &str) -> usize {
    // Nothing but a whole id may become a part of the path.
    if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return 0;
    }
    PLACES
        .iter()
        .filter_map(|(before, after)| {
            std::fs::read_to_string(format!("{before}{id}{after}/cgroup.procs")).ok()
        })
        .flat_map(|listed| pids(&listed))
        .filter(|&pid| match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) => true,
            Err(Errno::ESRCH) => false,
            Err(errno) => {
                tracing::warn!(
                    pid,
                    error = errno.desc(),
                    "Cannot end a process that Docker does not know of"
                );
                false
            }
        })
        .count()
}

/// A process of another namespace is listed as 0, and 0 would be this process's own group.
fn pids(listed: &str) -> Vec<i32> {
    let numbers = listed.lines().filter_map(|line| line.trim().parse().ok());
    numbers.filter(|&pid| pid > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_named_is_killed() {
        assert_eq!(pids("0\n1\n-1\n77\nx\n\n78\n"), [77, 78]);
    }

    #[test]
    fn what_is_no_whole_id_names_no_container() {
        for id in ["", "../../init", &"f".repeat(63), &"g".repeat(64)] {
            assert_eq!(end(id), 0, "{id}");
        }
    }
}
