//! Tests of the layout, of refused input and of rotation.

use proptest::prelude::*;

use super::*;

const FIRST: &str = "the first secret";
const SECOND: &str = "the second secret";
const THIRD: &str = "the third secret";

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect()
}

fn create(texts: &[&str]) -> (Keyring, WrappedKeys) {
    Keyring::create(&secrets(texts)).unwrap()
}

fn unlock(texts: &[&str], wrapped: &WrappedKeys) -> Unlocked {
    Keyring::unlock(&secrets(texts), wrapped).unwrap()
}

/// With fixed randomness.
fn create_fixed() -> (Keyring, WrappedKeys) {
    let index_key = std::array::from_fn(|at| at as u8);
    let mut nonces = (0..).map(|byte| Ok([byte; NONCE_BYTES]));
    Keyring::create_with(&secrets(&[FIRST, SECOND]), [7; 32], &index_key, || nonces.next().unwrap()).unwrap()
}

fn sealed(keyring: &Keyring, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    keyring.seal(b"aad", plain, &mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decrypts, and returns the plaintext or `None`. Checks that the rest of the buffer is unchanged.
fn opened(keyring: &Keyring, aad: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut out = b"before".to_vec();
    let answer = keyring.open(aad, sealed, &mut out);
    let plain = out.strip_prefix(b"before").unwrap().to_vec();
    if answer != Ok(Opened::Plain) {
        assert!(plain.is_empty());
    }
    answer.map(|opened| (opened == Opened::Plain).then_some(plain))
}

fn is_corrupt<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::Corrupt(_)))
}

/// Stored files depend on this layout: these bytes never change.
///
/// Another implementation than these crates computed them.
#[test]
fn version_1_is_these_bytes() {
    let (keyring, wrapped) = create_fixed();
    let expected = concat!(
        "010707070707070707070707070707070707070707070707070707070707070707",
        "02",
        "01ba74e1",
        "000000000000000000000000000000000000000000000000",
        "15999647872a381313ca41ed67549d50cf05f5826a469e99be4caf699ce61ecc",
        "3fc5aeead34760e3571746193b01fa9f",
        "03f9af08",
        "010101010101010101010101010101010101010101010101",
        "3e57ec06fda947961864bfb89c64404980ef48560ce12cd850ee3979fba2aeca",
        "a84ef035ba6a1ad02b3a0262ffcca97b",
    );
    assert_eq!(hex(&wrapped.encode()), expected);

    let mut record = Vec::new();
    keyring.seal_with(&[9; NONCE_BYTES], b"aad", b"plain", &mut record).unwrap();
    let expected = concat!(
        "01ba74e1",
        "090909090909090909090909090909090909090909090909",
        "a8dbc39fe5",
        "c6719da3f2267686dffa27b1e2394999",
    );
    assert_eq!(hex(&record), expected);
    assert_eq!(opened(&keyring, b"aad", &record), Ok(Some(b"plain".to_vec())));

    assert_eq!(hex(&keyring.lookup(Domain::Session, b"ann")), "5575afc3d469b522c2d0bc2a74233ede");
    assert_eq!(hex(&keyring.lookup(Domain::User, b"ann")), "82d094139cb17ed8f8ea19ffead9e849");
}

#[test]
fn wrapped_keys_unlock_with_their_secrets() {
    let (keyring, wrapped) = create(&[FIRST, SECOND]);
    let record = sealed(&keyring, b"plain");
    for texts in [[FIRST, SECOND], [SECOND, FIRST]] {
        let Unlocked { keyring: again, extended, exact } =
            unlock(&texts, &WrappedKeys::decode(&wrapped.encode()).unwrap());
        assert_eq!((extended, exact), (None, None));
        assert_eq!(opened(&again, b"aad", &record), Ok(Some(b"plain".to_vec())));
        assert_eq!(again.lookup(Domain::User, b"ann"), keyring.lookup(Domain::User, b"ann"));
    }
}

#[test]
fn unlocking_without_a_secret_of_the_store_is_the_wrong_secret() {
    let (_, wrapped) = create(&[FIRST]);
    let error = Keyring::unlock(&secrets(&[SECOND, THIRD]), &wrapped).unwrap_err();
    assert_eq!(error, UnlockError::WrongSecret);
}

#[test]
fn creating_and_unlocking_check_the_secrets() {
    let (_, wrapped) = create(&[FIRST]);
    for bad in [&[][..], &["short"], &[FIRST, FIRST]] {
        let error = Keyring::create(&secrets(bad)).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_OPTION");
        assert_eq!(Keyring::unlock(&secrets(bad), &wrapped).unwrap_err(), error.into());
    }
}

#[test]
fn rotation_keeps_records_and_lookups_until_the_old_secret_goes() {
    let (old, wrapped) = create(&[FIRST]);
    let record = sealed(&old, b"plain");
    assert!(old.knows(&record));

    let Unlocked { keyring: both, extended, exact } = unlock(&[SECOND, FIRST], &wrapped);
    assert!(exact.is_some());
    let wrapped = extended.expect("a secret was added");
    assert_eq!(opened(&both, b"aad", &record), Ok(Some(b"plain".to_vec())));
    assert!(both.knows(&record));
    let newer = sealed(&both, b"newer");
    assert!(both.knows(&newer) && !old.knows(&newer));
    assert_eq!(unlock(&[SECOND, FIRST], &wrapped).extended, None);
    assert_eq!(opened(&old, b"aad", &newer), Ok(None));

    let Unlocked { keyring: new, extended, exact } = unlock(&[SECOND], &wrapped);
    assert_eq!(extended, None);
    let wrapped = exact.expect("a secret has left");
    assert_eq!(opened(&new, b"aad", &record), Ok(None));
    assert_eq!(opened(&new, b"aad", &newer), Ok(Some(b"newer".to_vec())));
    assert_eq!(unlock(&[SECOND], &wrapped).exact, None);
    let error = Keyring::unlock(&secrets(&[FIRST]), &wrapped).unwrap_err();
    assert_eq!(error, UnlockError::WrongSecret);

    for keyring in [both, new] {
        assert_eq!(keyring.lookup(Domain::Session, b"id"), old.lookup(Domain::Session, b"id"));
    }
}

#[test]
fn a_swap_of_one_secret_is_detected() {
    let (_, wrapped) = create(&[FIRST, SECOND]);
    let Unlocked { extended, exact, .. } = unlock(&[THIRD, FIRST], &wrapped);
    let exact = exact.expect("as many secrets, but others");
    assert_eq!(unlock(&[THIRD, FIRST], &exact).exact, None);
    // Adding a secret locks nobody out.
    let extended = extended.expect("a secret was added");
    for texts in [[FIRST], [SECOND], [THIRD]] {
        assert_eq!(unlock(&texts, &extended).extended, None);
    }
}

#[test]
fn a_broken_wrapped_key_is_corrupt_and_heals_where_another_opens() {
    let (_, wrapped) = create(&[FIRST, SECOND]);
    let mut bytes = wrapped.encode();
    *bytes.last_mut().unwrap() ^= 1;
    let broken = WrappedKeys::decode(&bytes).unwrap();
    let error = Keyring::unlock(&secrets(&[SECOND]), &broken).unwrap_err();
    assert!(matches!(error, UnlockError::Store(StoreError::Corrupt(_))), "{error:?}");
    let Unlocked { extended, exact, .. } = unlock(&[FIRST, SECOND], &broken);
    for healed in [extended, exact] {
        let healed = healed.expect("a wrapped key is broken");
        assert_eq!(unlock(&[SECOND, FIRST], &healed).extended, None);
    }
}

#[test]
fn stores_with_the_same_secret_have_different_keys() {
    let (one, one_wrapped) = create(&[FIRST]);
    let (other, other_wrapped) = create(&[FIRST]);
    assert_ne!(one.lookup(Domain::Session, b"id"), other.lookup(Domain::Session, b"id"));
    assert_ne!(one_wrapped.encode()[1..33], other_wrapped.encode()[1..33]);
    let record = sealed(&one, b"plain");
    assert_ne!(record[..KEY_ID_BYTES], sealed(&other, b"plain")[..KEY_ID_BYTES]);
    assert_eq!(opened(&other, b"aad", &record), Ok(None));
}

#[test]
fn encrypting_a_record_twice_gives_different_bytes() {
    let (keyring, _) = create(&[FIRST]);
    let (one, other) = (sealed(&keyring, b""), sealed(&keyring, b""));
    assert_eq!(one.len(), OVERHEAD_BYTES);
    assert_ne!(one, other);
}

/// Only one pair in 2³² shares an id, so the test makes one.
#[test]
fn secrets_with_the_same_key_id_are_distinguished() {
    let (mut keyring, _) = create(&[FIRST, SECOND]);
    keyring.records[0].id = keyring.records[1].id;
    let record = sealed(&keyring, b"plain");
    keyring.records.reverse();
    assert_eq!(opened(&keyring, b"aad", &record), Ok(Some(b"plain".to_vec())));
    assert!(is_corrupt(opened(&keyring, b"other", &record)));
}

#[test]
fn a_session_and_a_user_with_equal_bytes_have_different_lookup_keys() {
    let (keyring, _) = create(&[FIRST]);
    assert_ne!(keyring.lookup(Domain::Session, b"ann"), keyring.lookup(Domain::User, b"ann"));
}

#[test]
fn wrapped_keys_of_another_version_or_count_are_corrupt() {
    let bytes = create_fixed().1.encode();
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        WrappedKeys::decode(&bytes)
    };
    for (at, byte) in [(0, 0), (0, 2), (33, 0), (33, 1), (33, 3)] {
        assert!(is_corrupt(changed(at, byte)), "{byte} at {at}");
    }
    assert!(is_corrupt(WrappedKeys::decode(&[&bytes[..33], &[0]].concat())));
    let wraps = [7; 17 * 76];
    assert!(is_corrupt(WrappedKeys::decode(&[&bytes[..33], &[17], &wraps].concat())));
    assert!(WrappedKeys::decode(&[&bytes[..33], &[16], &wraps[76..]].concat()).is_ok());
}

#[test]
fn truncated_or_extended_wrapped_keys_are_corrupt() {
    let mut bytes = create_fixed().1.encode();
    for len in 0..bytes.len() {
        assert!(is_corrupt(WrappedKeys::decode(&bytes[..len])), "{len}");
    }
    bytes.push(0);
    assert!(is_corrupt(WrappedKeys::decode(&bytes)));
}

#[test]
fn only_the_first_keys_that_may_go_are_removed() {
    let (keyring, _) = create(&[FIRST]);
    let (_, wrapped) = create(&[FIRST, SECOND, THIRD]);
    let ids: Vec<KeyId> = wrapped.ids().copied().collect();
    assert!(ids.iter().all(|id| wrapped.has(id)) && !wrapped.has(&keyring.current_id()));
    for (max, left) in [(0, &ids[..]), (1, &ids[1..]), (2, &ids[1..2])] {
        let mut some = wrapped.clone();
        some.remove_first(max, |id| *id != ids[1]);
        assert_eq!(some.ids().copied().collect::<Vec<_>>(), left);
    }
}

#[test]
fn debug_does_not_show_the_keys() {
    let (keyring, wrapped) = create_fixed();
    assert_eq!(format!("{keyring:?}"), "Keyring(2 secrets)");
    let unlocked = format!("{:?}", unlock(&[FIRST, SECOND], &wrapped));
    assert_eq!(unlocked, "Unlocked { keyring: Keyring(2 secrets), extended: None, exact: None }");
}

#[test]
fn threads_can_share_a_keyring() {
    fn check<T: Send + Sync>() {}
    check::<Keyring>();
    check::<Secret>();
}

fn bytes(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), len)
}

proptest! {
    #[test]
    fn opens_what_it_seals(plain in bytes(0..600), aad in bytes(0..40)) {
        let (keyring, _) = create_fixed();
        let mut out = Vec::new();
        keyring.seal(&aad, &plain, &mut out).unwrap();
        prop_assert_eq!(out.len(), plain.len() + OVERHEAD_BYTES);
        prop_assert_eq!(opened(&keyring, &aad, &out), Ok(Some(plain)));
    }

    #[test]
    fn sealing_appends(before in bytes(0..40)) {
        let (keyring, _) = create_fixed();
        let mut out = before.clone();
        keyring.seal(b"aad", b"plain", &mut out).unwrap();
        let record = out.strip_prefix(&before[..]).unwrap();
        prop_assert_eq!(opened(&keyring, b"aad", record), Ok(Some(b"plain".to_vec())));
    }

    #[test]
    fn the_plaintext_does_not_occur_in_sealed_bytes(plain in bytes(8..200)) {
        let record = sealed(&create_fixed().0, &plain);
        prop_assert!(record.windows(8).all(|window| plain.windows(8).all(|other| window != other)));
    }

    #[test]
    fn any_flipped_bit_is_refused(plain in bytes(0..100), at: prop::sample::Index, bit in 0u8..8) {
        let (keyring, _) = create_fixed();
        let mut record = sealed(&keyring, &plain);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        let answer = opened(&keyring, b"aad", &record);
        if at < KEY_ID_BYTES {
            prop_assert_eq!(answer, Ok(None));
        } else {
            prop_assert!(is_corrupt(answer));
        }
    }

    #[test]
    fn any_cut_or_longer_record_is_corrupt(plain in bytes(0..100), more in bytes(1..40)) {
        let (keyring, _) = create_fixed();
        let record = sealed(&keyring, &plain);
        for len in 0..record.len() {
            prop_assert!(is_corrupt(opened(&keyring, b"aad", &record[..len])));
        }
        prop_assert!(is_corrupt(opened(&keyring, b"aad", &[record, more].concat())));
    }

    #[test]
    fn another_aad_is_refused(aad in bytes(0..40), other in bytes(0..40)) {
        prop_assume!(aad != other);
        let (keyring, _) = create_fixed();
        let mut record = Vec::new();
        keyring.seal(&aad, b"plain", &mut record).unwrap();
        prop_assert!(is_corrupt(opened(&keyring, &other, &record)));
    }

    #[test]
    fn any_bytes_open_or_are_refused(sealed in bytes(0..200), known: bool) {
        let (keyring, _) = create_fixed();
        let id = if known { keyring.current().id.to_vec() } else { Vec::new() };
        prop_assert!(!matches!(opened(&keyring, b"aad", &[id, sealed].concat()), Ok(Some(_))));
    }

    #[test]
    fn any_flipped_bit_of_wrapped_keys_is_refused(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = create_fixed().1.encode();
        // The wrapped key of the second secret is not needed.
        let at = at.index(bytes.len() - 76);
        bytes[at] ^= 1 << bit;
        if let Ok(wrapped) = WrappedKeys::decode(&bytes) {
            prop_assert_eq!(wrapped.encode(), bytes);
            prop_assert!(Keyring::unlock(&secrets(&[FIRST]), &wrapped).is_err());
        }
    }
}
