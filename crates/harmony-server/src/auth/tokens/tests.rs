use std::path::PathBuf;

use harmony_types::fake::clock::VirtualClock;
use jsonwebtoken::Algorithm;

use super::*;
use crate::config::JwtConfig;

const TTL: Duration = Duration::from_secs(300);

const CLUSTER: ClusterId = ClusterId(7);

fn member(clock: &VirtualClock) -> Tokens {
    Tokens::new(&TokenConfig::Simple { ttl: TTL }, CLUSTER, Arc::new(clock.clone())).unwrap()
}

fn jwt_member(clock: &VirtualClock) -> Tokens {
    let secret = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys/ed.pem");
    let config =
        JwtConfig { method: Algorithm::HS256, public_key: None, private_key: Some(secret), ttl: TTL };
    Tokens::new(&TokenConfig::Jwt(config), CLUSTER, Arc::new(clock.clone())).unwrap()
}

/// With alice, whose password has this hash.
fn state(revision: u64, hash: &'static str) -> AuthState {
    let alice = User { name: "alice".into(), password_hash: hash.into(), ..User::default() };
    let mut state = AuthState { enabled: true, revision, ..AuthState::default() };
    state.users.insert("alice".into(), alice);
    state
}

fn login(member: &Tokens, state: &AuthState) -> String {
    member.issue(state, &state.users["alice"]).unwrap()
}

fn alice(auth_revision: u64) -> Result<Author, TokenError> {
    Ok(Author { user: "alice".into(), auth_revision, by_member: false })
}

#[test]
fn a_token_is_good_on_every_member_and_after_a_restart() {
    for form in [member, jwt_member] {
        let (here, there) = (VirtualClock::new(), VirtualClock::new());
        // Calendars that differ by less than a lifetime.
        there.jump_unix_ms(-200_000);
        let state = state(5, "hash");
        let text = login(&form(&here), &state);
        assert_eq!(form(&here).check(&state, &text), alice(5));
        assert_eq!(form(&there).check(&state, &text), alice(5));
        assert_eq!(form(&here).check(&state, &text[1..]), Err(TokenError::Invalid));
        assert_eq!(form(&here).check(&state, ""), Err(TokenError::Invalid));
        assert_eq!(form(&here).check(&state, &"0".repeat(TOKEN_BYTES_MAX + 2)), Err(TokenError::Invalid));
    }
}

#[test]
fn a_simple_token_that_is_not_used_ends() {
    let clock = VirtualClock::new();
    let (tokens, state) = (member(&clock), state(5, "hash"));
    let text = login(&tokens, &state);
    for _ in 0..10 {
        clock.advance(TTL);
        assert_eq!(tokens.check(&state, &text), alice(5), "used in time");
    }
    // The calendar has no say in what this member saw being used.
    clock.jump_unix_ms(86_400_000);
    assert_eq!(tokens.check(&state, &text), alice(5));
    clock.advance(TTL + Duration::from_millis(1));
    assert_eq!(tokens.check(&state, &text), Err(TokenError::Invalid));
    clock.advance(TTL);
    assert_eq!(tokens.check(&state, &text), Err(TokenError::Invalid), "and does not come back");
}

#[test]
fn a_simple_token_that_was_never_seen_here_is_as_old_as_it_says() {
    let clock = VirtualClock::new();
    let state = state(5, "hash");
    let text = login(&member(&clock), &state);
    clock.advance(TTL);
    assert_eq!(member(&clock).check(&state, &text), alice(5));
    clock.advance(Duration::from_millis(1));
    assert_eq!(member(&clock).check(&state, &text), Err(TokenError::Invalid));
    // From a member whose calendar is far ahead: no token may live for years.
    clock.jump_unix_ms(1_000_000);
    let ahead = login(&member(&clock), &state);
    clock.jump_unix_ms(-1_000_000);
    assert_eq!(member(&clock).check(&state, &ahead), Err(TokenError::Invalid));
}

#[test]
fn a_simple_token_ends_with_its_password_and_its_user() {
    let clock = VirtualClock::new();
    let tokens = member(&clock);
    let (before, changed) = (state(5, "hash"), state(6, "other"));
    let text = login(&tokens, &before);
    assert_eq!(tokens.check(&before, &text), alice(5));
    // Known here, and seen for the first time.
    for tokens in [&tokens, &member(&clock)] {
        assert_eq!(tokens.check(&changed, &text), Err(TokenError::Invalid));
        let gone = AuthState { users: Default::default(), ..changed.clone() };
        assert_eq!(tokens.check(&gone, &text), Err(TokenError::Invalid));
        let mut certificate_only = changed.clone();
        let user = certificate_only.users.get_mut("alice").unwrap();
        (user.no_password, user.password_hash) = (true, Bytes::new());
        assert_eq!(tokens.check(&certificate_only, &text), Err(TokenError::Invalid));
        assert_eq!(tokens.issue(&certificate_only, &certificate_only.users["alice"]), None);
    }
    // Another change is none of its business: the rights are looked up anew each time.
    assert_eq!(tokens.check(&state(9, "hash"), &text), alice(9));
}

#[test]
fn a_member_that_lags_knows_that_it_does() {
    let clock = VirtualClock::new();
    let (old, new) = (state(5, "hash"), state(6, "other"));
    let text = login(&member(&clock), &new);
    let lagging = member(&clock);
    assert_eq!(lagging.check(&old, &text), Err(TokenError::Ahead));
    assert_eq!(lagging.check(&AuthState::default(), &text), Err(TokenError::Ahead));
    assert_eq!(lagging.check(&new, &text), alice(6));
    let text = login(&jwt_member(&clock), &new);
    assert_eq!(jwt_member(&clock).check(&old, &text), Err(TokenError::Ahead));
}

#[test]
fn a_jwt_holds_for_one_revision_and_one_lifetime() {
    let clock = VirtualClock::new();
    let tokens = jwt_member(&clock);
    let text = login(&tokens, &state(5, "hash"));
    for _ in 0..2 {
        // An author of an old revision is refused where permissions are asked for.
        assert_eq!(tokens.check(&state(6, "other"), &text), alice(5));
        clock.advance(TTL / 3);
    }
    clock.advance(TTL);
    assert_eq!(tokens.check(&state(5, "hash"), &text), Err(TokenError::Invalid));
    assert_eq!(jwt_member(&clock).check(&state(5, "hash"), &text), Err(TokenError::Invalid));
}
