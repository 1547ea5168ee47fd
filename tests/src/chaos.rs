//! What `kill -9` can break: nothing. Processes are killed at every fail point and at random moments while gitspaces are churned, and
//! after each kill everything is counted.
//!
//! In `./test` runs a short form; `tests/chaos` runs the long one. Both print their seed, and the same seed makes the same choices.

mod count;
mod points;
mod seed;
mod tally;
mod world;

use crate::{
    deployment::{Daemon, Deployment, text},
    own_docker,
    small_disk::SmallDisk,
};
use anyhow::{Context as _, Result, ensure};
use points::State;
use seed::Seed;
use tally::Tally;
use world::World;

/// In `./test`.
const SHORT_KILLS: usize = 12;
const SHORT_POINTS: usize = 6;
const SHORT_DOCKER_KILLS: usize = 3;
const SHORT_DISKS: usize = 3;
const SHORT_FULL_POINTS: usize = 3;
/// Above what `readyz` calls too little, with a copy of the agent in it.
const DISK_MIB: u64 = 160;

fn setting(name: &str, short: usize) -> Result<usize> {
    Ok(match std::env::var(name) {
        Ok(text) => text.parse()?,
        Err(_) => short,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_by_kills_at_random_moments() -> Result<()> {
    let kills = setting("GITSPACES_CHAOS_KILLS", SHORT_KILLS)?;
    if kills == 0 {
        return Ok(());
    }
    let mut seed = Seed::from_environment()?;
    let host = Deployment::start().await?;
    let mut world = World::new(host, &mut seed)?;
    for _ in 0..kills {
        world.round(&mut seed)?;
    }
    world.end()?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_by_a_kill_at_any_fail_point() -> Result<()> {
    let wanted = setting("GITSPACES_CHAOS_POINTS", SHORT_POINTS)?;
    if wanted == 0 {
        return Ok(());
    }
    let mut seed = Seed::from_environment()?;
    let points = points::some(&mut seed, wanted);
    let host = Deployment::start().await?;
    let mut world = World::new(host, &mut seed)?;
    for point in points {
        world.die_at(&mut seed, point)?;
    }
    world.end()?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_by_kills_of_dockerd_at_random_moments() -> Result<()> {
    let kills = setting("GITSPACES_CHAOS_DOCKER_KILLS", SHORT_DOCKER_KILLS)?;
    if kills == 0 {
        return Ok(());
    }
    let test = "chaos::nothing_breaks_by_kills_of_dockerd_at_random_moments";
    let Some(mut docker) = own_docker::enter(test, true)? else {
        return Ok(());
    };
    let mut seed = Seed::from_environment()?;
    let host = Deployment::start_with(&docker.config()).await?;
    let mut world = World::new(host, &mut seed)?;
    for _ in 0..kills {
        world.docker_round(&mut seed, &mut docker)?;
    }
    world.end()?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_by_disks_that_are_full_at_random_moments() -> Result<()> {
    let times = setting("GITSPACES_CHAOS_DISKS", SHORT_DISKS)?;
    if times == 0 {
        return Ok(());
    }
    let mut seed = Seed::from_environment()?;
    let mut world = world_on_small_disks(&mut seed).await?;
    for _ in 0..times {
        world.disk_round(&mut seed)?;
    }
    world.end()?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks_by_a_disk_that_is_full_at_any_fail_point() -> Result<()> {
    let wanted = setting("GITSPACES_CHAOS_FULL_POINTS", SHORT_FULL_POINTS)?;
    if wanted == 0 {
        return Ok(());
    }
    let mut seed = Seed::from_environment()?;
    let points = points::some(&mut seed, wanted);
    let mut world = world_on_small_disks(&mut seed).await?;
    for point in points {
        world.fill_at(&mut seed, point)?;
    }
    world.end()?.check()
}

async fn world_on_small_disks(seed: &mut Seed) -> Result<World> {
    let (mut host, disks) = on_small_disks().await?;
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    host.log_in()?;
    Ok(World::new(host, seed)?.with_disks(disks))
}

/// Each state on a disk of its own, and nothing runs yet.
async fn on_small_disks() -> Result<(Deployment, Vec<(State, SmallDisk)>)> {
    let host = Deployment::prepare_embedded("").await?;
    let mut disks = Vec::new();
    for state in State::ALL {
        disks.push((
            state,
            SmallDisk::mount(&host.path(state.folder()), DISK_MIB)?,
        ));
    }
    Ok((host, disks))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_killed_while_it_enrols_is_one_delegate_afterwards() -> Result<()> {
    for point in points::ENROLMENT {
        let mut host = Deployment::prepare_embedded("").await?;
        host.run(Daemon::Runner)?;
        host.run_armed(Daemon::Delegate, point)?;
        let mut ended = false;
        while !ended {
            ended = host.has_ended(Daemon::Delegate)?;
            ensure!(
                ended || !host.is_ready()?,
                "{point} was not reached:\n{}",
                host.logs()
            );
        }
        host.run(Daemon::Delegate)?;
        host.until_ready()?;
        host.log_in()?;
        let delegates = host.json(&["delegate", "list"])?;
        let count = delegates.as_array().map_or(0, Vec::len);
        ensure!(count == 1, "{point}: one delegate: {delegates:#}");
    }
    Ok(())
}

/// Control plane and delegate are one process here: both ends are killed at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_killed_while_its_key_is_rotated_gets_in_and_rotates_then() -> Result<()> {
    let mut host = Deployment::start().await?;
    let key = |host: &Deployment, name: &str| -> Result<String> {
        let delegate = host.json(&["delegate", "show", "host"])?;
        Ok(text(&delegate, &format!("/key/{name}")))
    };
    for point in points::ROTATION.iter().chain(points::ENROLMENT) {
        let before = key(&host, "fingerprint")?;
        host.kill(Daemon::Delegate)?;
        host.run_armed(Daemon::Delegate, point)?;
        host.until_ready()?;
        let said = host.daemon(Daemon::Delegate, &["rotate"])?;
        ensure!(said.code == 69, "{point} was not reached: {said:#?}");
        host.kill(Daemon::Delegate)?;
        host.run(Daemon::Delegate)?;
        host.until_ready()
            .with_context(|| format!("killed at {point}"))?;
        let said = host.daemon(Daemon::Delegate, &["rotate"])?;
        ensure!(said.code == 0, "{point}: {said:#?}\n{}", host.logs());
        let after = key(&host, "fingerprint")?;
        ensure!(after != before, "{point}: {before} is still in use");
        ensure!(key(&host, "next")?.is_empty(), "{point}: two keys get in");
        ensure!(host.is_ready()?, "{point}: {}", host.logs());
    }
    let delegates = host.json(&["delegate", "list"])?;
    ensure!(
        delegates.as_array().map_or(0, Vec::len) == 1,
        "one delegate: {delegates:#}"
    );
    Ok(())
}

/// Rotated on a disk that is full from any point of it, the key in use is the old one or the new one, and rotates when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_whose_disk_is_full_while_its_key_is_rotated_stays_in_and_rotates_then()
-> Result<()> {
    let (mut host, disks) = on_small_disks().await?;
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    host.until_ready()?;
    host.log_in()?;
    for point in points::ROTATION.iter().chain(points::ENROLMENT) {
        let (_, disk) = disks
            .iter()
            .find(|(state, _)| *state == State::of(point))
            .context("a disk")?;
        host.kill(Daemon::Delegate)?;
        host.run_to_fill(Daemon::Delegate, point, &disk.ballast())?;
        host.until_ready()?;
        let said = host.daemon(Daemon::Delegate, &["rotate"])?;
        ensure!(disk.is_full(), "{point} was not reached: {said:#?}");
        let told = said.err.to_lowercase();
        ensure!(
            said.code == 0 || told.contains("no space left") || told.contains("disk is full"),
            "{point}: the cause is told: {said:#?}"
        );
        ensure!(!host.has_ended(Daemon::Delegate)?, "{}", host.logs());
        disk.free()?;
        host.until_ready()
            .with_context(|| format!("full at {point}"))?;
        let said = host.daemon(Daemon::Delegate, &["rotate"])?;
        ensure!(said.code == 0, "{point}: {said:#?}\n{}", host.logs());
        let delegate = host.json(&["delegate", "show", "host"])?;
        ensure!(
            text(&delegate, "/key/next").is_empty(),
            "{point}: two keys get in"
        );
    }
    Ok(())
}

#[test]
fn every_fail_point_of_the_sources_is_in_the_list() -> Result<()> {
    points::check_against_sources()
}
