//! Which delegate gets a gitspace: all selectors match, it takes tasks, and the gitspace fits into what its operator gives.
//!
//! Of several it is one that is in the [`rotation`](super::rotation), then the one with the largest share of memory left, then the first by name.

use super::seams::DelegateView;
use wire::{
    control::Capacity,
    failure::{Failure, FailureCode},
    gitspace::Resources,
    ids::DelegateUuid,
};

/// A delegate and what it runs.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub delegate: &'a DelegateView,
    pub used: Capacity,
    /// It is not in the rotation: another is preferred.
    pub out: bool,
}

/// # Errors
/// Says how far the delegates got, and what an operator can do.
pub fn place(
    resources: &Resources,
    selectors: &[String],
    candidates: &[Candidate<'_>],
) -> Result<DelegateUuid, Failure> {
    let valid = candidates
        .iter()
        .filter(|candidate| !candidate.delegate.revoked);
    let matching: Vec<_> = valid
        .clone()
        .filter(|candidate| candidate.delegate.matches(selectors))
        .collect();
    let taking: Vec<_> = matching
        .iter()
        .filter(|candidate| candidate.delegate.takes_tasks() && !candidate.delegate.draining)
        .collect();
    let best = taking
        .iter()
        .filter(|candidate| {
            candidate
                .delegate
                .capacity
                .is_some_and(|capacity| capacity.fits(&candidate.used, resources))
        })
        .max_by(|one, other| {
            other
                .out
                .cmp(&one.out)
                .then_with(|| free_share(one).cmp(&free_share(other)))
                .then_with(|| other.delegate.name.cmp(&one.delegate.name))
        });
    if let Some(best) = best {
        return Ok(best.delegate.id);
    }
    let failure = |message: String| Failure::new(FailureCode::NoCapacity, message);
    Err(if valid.clone().next().is_none() {
        failure("no delegate is enrolled".to_owned())
            .hint("an administrator makes a join token and enrols a delegate with it")
    } else if matching.is_empty() {
        failure(format!(
            "no delegate matches the selectors {}",
            selectors.join(", ")
        ))
        .hint("give a delegate these tags, or take a machine of another infra provider")
    } else if taking.is_empty() {
        failure(format!(
            "none of the {} matching delegates takes tasks",
            matching.len()
        ))
        .hint(
            "they are away, draining, or their runners do not answer; see `gitspace delegate list`",
        )
    } else {
        failure(format!(
            "none of the {} matching delegates has room for {} CPU millis and {} bytes of memory",
            taking.len(),
            resources.cpu_millis,
            resources.memory_bytes
        ))
        .hint("stop a gitspace that is not used, or give the delegate more capacity; it starts by itself when there is room")
    })
}

/// Memory left, in thousandths.
fn free_share(candidate: &Candidate<'_>) -> u128 {
    candidate.delegate.capacity.map_or(0, |capacity| {
        let free = capacity
            .memory_bytes
            .saturating_sub(candidate.used.memory_bytes);
        u128::from(free)
            .saturating_mul(1000)
            .checked_div(u128::from(capacity.memory_bytes))
            .unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::tests::support;

    const RESOURCES: Resources = Resources {
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        pids: 512,
    };
    const NOTHING: Capacity = Capacity {
        gitspaces: 0,
        cpu_millis: 0,
        memory_bytes: 0,
    };

    #[test]
    fn every_selector_has_to_match_the_name_or_a_tag() {
        let mut one = support::delegate(1, "one");
        one.tags = vec!["gpu".into()];
        let candidates = [Candidate {
            delegate: &one,
            used: NOTHING,
            out: false,
        }];
        let selectors = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for fits in [&[][..], &["gpu"], &["one"], &["one", "gpu"]] {
            assert_eq!(
                place(&RESOURCES, &selectors(fits), &candidates),
                Ok(one.id),
                "{fits:?}"
            );
        }
        for misses in [&["two"][..], &["gpu", "two"], &["GPU"]] {
            let failure = place(&RESOURCES, &selectors(misses), &candidates).unwrap_err();
            assert_eq!(failure.code, FailureCode::NoCapacity);
            assert!(failure.message.contains("selectors"), "{failure:?}");
        }
    }

    #[test]
    fn the_emptiest_delegate_with_room_is_taken() {
        let (one, two) = (support::delegate(1, "one"), support::delegate(2, "two"));
        let used = Capacity {
            gitspaces: 1,
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
        };
        let chosen = place(
            &RESOURCES,
            &[],
            &[
                Candidate {
                    delegate: &one,
                    used,
                    out: false,
                },
                Candidate {
                    delegate: &two,
                    used: NOTHING,
                    out: false,
                },
            ],
        );
        assert_eq!(chosen, Ok(two.id));
    }

    #[test]
    fn a_host_out_of_the_rotation_is_taken_only_where_there_is_no_other() {
        let (one, two) = (support::delegate(1, "one"), support::delegate(2, "two"));
        let out = Candidate {
            delegate: &one,
            used: NOTHING,
            out: true,
        };
        let fuller = Candidate {
            delegate: &two,
            used: Capacity {
                gitspaces: 1,
                cpu_millis: 1000,
                memory_bytes: 1 << 30,
            },
            out: false,
        };
        assert_eq!(place(&RESOURCES, &[], &[out, fuller]), Ok(two.id));
        assert_eq!(place(&RESOURCES, &[], &[out]), Ok(one.id));
    }

    #[test]
    fn a_delegate_that_is_full_away_draining_or_revoked_is_not_taken() {
        let good = support::delegate(1, "one");
        let full = Capacity {
            gitspaces: good.capacity.unwrap().gitspaces,
            ..NOTHING
        };
        type Spoil = fn(&mut DelegateView);
        let spoil: [(&str, Spoil, Capacity); 5] = [
            ("room", |_| {}, full),
            ("takes tasks", |d| d.connected = false, NOTHING),
            ("takes tasks", |d| d.draining = true, NOTHING),
            ("takes tasks", |d| d.runner_ready = false, NOTHING),
            ("enrolled", |d| d.revoked = true, NOTHING),
        ];
        for (why, spoil, used) in spoil {
            let mut delegate = good.clone();
            spoil(&mut delegate);
            let failure = place(
                &RESOURCES,
                &[],
                &[Candidate {
                    delegate: &delegate,
                    used,
                    out: false,
                }],
            )
            .unwrap_err();
            assert!(
                failure.message.contains(why) && failure.hint.is_some(),
                "{failure:?}"
            );
        }
    }
}
