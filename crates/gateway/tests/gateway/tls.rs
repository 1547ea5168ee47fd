//! What holds of plain connections holds of those that come by TLS.

use crate::{forwarding, grants, harness, hostile, upgrade};

macro_rules! over_tls {
    ($($module:ident::$test:ident,)*) => {
        $(
            #[test]
            fn $test() {
                harness::over_tls($module::$test);
            }
        )*
    };
}

over_tls! {
    forwarding::a_body_passes_counted_and_in_chunks_with_its_trailers,
    forwarding::a_large_body_passes_whole,
    forwarding::a_client_that_waits_for_100_continue_is_told_by_the_app,
    forwarding::interim_answers_and_answers_without_a_length_pass,
    forwarding::an_event_arrives_before_the_answer_ends,
    forwarding::connections_to_the_app_are_used_again_and_dialled_again_when_closed,
    forwarding::a_client_that_goes_away_ends_the_apps_work,
    forwarding::a_stalled_reader_stalls_the_app_instead_of_filling_memory,
    hostile::an_ambiguous_request_is_refused_before_the_app_sees_a_byte,
    hostile::what_follows_a_request_is_a_request_of_its_own,
    hostile::a_head_that_comes_byte_by_byte_is_read,
    hostile::a_head_that_is_too_large_is_refused,
    upgrade::a_websocket_passes_both_ways_and_its_end_passes_too,
    upgrade::a_revocation_cuts_a_live_websocket_within_a_second,
    upgrade::bytes_after_an_upgrade_wait_for_the_101,
    grants::a_revoked_grant_is_refused_on_the_same_connection,
}
