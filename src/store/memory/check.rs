//! The table and the index against plain models of them: for the tests, and for cargo-fuzz (`fuzz/`).

use std::collections::{BTreeMap, BTreeSet};

use super::index::{self, HANDLE_BITS, Index};
use super::record::{Draft, Record};
use super::slab::Place;
use super::table::Table;
use crate::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};

/// Takes its decisions from bytes; 0 where there are no more.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

/// A session as the model has it.
struct Known {
    place: Place,
    created: u64,
    expires: Expiry,
    text: String,
}

/// Creates, updates, touches and removes sessions in a table and in a map, as `bytes` say.
///
/// # Panics
/// If the two do not agree.
pub fn check_table(bytes: &[u8]) {
    let (mut table, mut model) = (Table::default(), BTreeMap::<usize, Known>::new());
    let mut choices = Choices(bytes.iter());
    let mut created = 0;
    while !choices.is_over() {
        let (op, number) = (choices.next() % 8, choices.next());
        let id = SessionId::new(&format!("{number:02x}")).unwrap();
        // Few hashes, so that they collide.
        let hash = (number as u64 % 5) << 61;
        let found = table.find(hash, &id).map(|(place, _)| place);
        assert_eq!(found, model.get(&number).map(|known| known.place));
        match (op, found) {
            (0..3, None) => {
                let (expires, text) = content(&mut choices);
                let place = table.insert(hash, &draft(&id, expires, &text, created));
                model.insert(number, Known { place, created, expires, text });
                created += 1;
            }
            (0..3, Some(place)) => {
                let known = model.get_mut(&number).unwrap();
                (known.expires, known.text) = content(&mut choices);
                let draft = draft(&id, known.expires, &known.text, known.created);
                known.place = table.replace(hash, place, &draft);
            }
            (3, Some(place)) => {
                let expires = Expiry::moved_to(choices.next() as i64).unwrap();
                let record = table.slab.get(place);
                record.move_expires(record.expires(), expires).unwrap();
                model.get_mut(&number).unwrap().expires = expires;
            }
            (4..7, Some(place)) => {
                table.remove(hash, place);
                model.remove(&number);
                assert!(table.slab.try_get(place).is_none());
            }
            (7, _) => table.slab.give_back(),
            _ => {}
        }
    }
    compare(&table, &model);
}

fn compare(table: &Table, model: &BTreeMap<usize, Known>) {
    assert_eq!(table.len(), model.len());
    assert_eq!(table.bytes, table.slab.records().map(Record::cost).sum::<usize>());
    let walk = (0..table.slab.chunks()).flat_map(|chunk| table.slab.places(chunk));
    let walked: BTreeSet<u32> = walk.map(Place::to_bits).collect();
    assert_eq!(walked, model.values().map(|known| known.place.to_bits()).collect());
    for known in model.values() {
        let record = table.slab.try_get(known.place).unwrap();
        assert_eq!((record.created(), record.expires()), (known.created, known.expires));
        let body = Body::Json { text: &known.text, expires: ExpiresForm::Text };
        assert_eq!(record.content().unwrap().body, body);
    }
}

/// Of all sizes: of many to a chunk, of few, and of a chunk for each.
fn content(choices: &mut Choices<'_>) -> (Expiry, String) {
    let len = match choices.next() {
        few @ 0..200 => few,
        many @ 200..250 => (many - 199) * 40,
        most => (most - 249) * 16_000,
    };
    (Expiry::new(choices.next() as i64).unwrap(), "x".repeat(len))
}

fn draft(id: &SessionId, expires: Expiry, text: &str, created: u64) -> Draft {
    let user = UserKeyBuf::from_text("ann");
    let body = Body::Json { text, expires: ExpiresForm::Text };
    Draft::new(
        &Session { id: id.clone(), expires, content: Content { user: Some(user.as_key()), body } },
        created,
    )
}

/// Adds handles to an index and to a set, and removes them, as `bytes` say.
///
/// # Panics
/// If the two do not agree.
pub fn check_index(bytes: &[u8]) {
    let (mut index, mut model) = (Index::default(), BTreeSet::<(u64, u64)>::new());
    for pair in bytes.chunks_exact(2) {
        // The first and the last tags, so that runs go over the end.
        let hash = (u64::from(pair[0]) % 64).wrapping_sub(32) << HANDLE_BITS;
        let handle = u64::from(pair[1] % 64) + 1;
        if pair[1] < 160 {
            if model.insert((hash, handle)) {
                index.insert(hash, handle);
            }
        } else {
            assert_eq!(index.remove(hash, handle), model.remove(&(hash, handle)));
        }
        let of_hash = |model: &BTreeSet<(u64, u64)>| {
            model.range((hash, 0)..=(hash, u64::MAX)).map(|(_, handle)| *handle).collect::<BTreeSet<_>>()
        };
        let found: Vec<u64> = index.find(hash).collect();
        assert_eq!(found.len(), of_hash(&model).len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), of_hash(&model));
    }
    assert_eq!(index.len(), model.len());
    assert!(model.iter().all(|(hash, handle)| {
        index::tag(*hash) == *hash >> HANDLE_BITS && index.find(*hash).any(|found| found == *handle)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const BYTES: usize = if cfg!(miri) { 400 } else { 4000 };

    /// Miri takes some thousand times as long, and has no files.
    fn few() -> ProptestConfig {
        ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(if cfg!(miri) { few() } else { ProptestConfig::with_cases(256) })]

        #[test]
        fn a_table_does_what_a_map_does(bytes in vec(any::<u8>(), 0..BYTES)) {
            check_table(&bytes);
        }

        #[test]
        fn an_index_does_what_a_set_does(bytes in vec(any::<u8>(), 0..BYTES)) {
            check_index(&bytes);
        }
    }

    #[test]
    fn an_index_grows_and_shrinks_with_its_handles() {
        let mut index = Index::default();
        let hash = |handle: u64| handle.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let handles = if cfg!(miri) { 1..500 } else { 1..50_000 };
        for handle in handles.clone() {
            index.insert(hash(handle), handle);
            assert!(index.len() * 6 <= index.slots() * 5);
        }
        assert!(index.len() * 3 > index.slots() * 2 - 16);
        for handle in handles {
            assert!(index.find(hash(handle)).any(|found| found == handle));
            assert!(index.remove(hash(handle), handle));
        }
        assert_eq!((index.len(), index.slots()), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn a_table_gives_memory_back_and_uses_places_again() {
        let mut table = Table::default();
        let ids: Vec<SessionId> = (0..1000).map(|at| SessionId::new(&format!("{at:04x}")).unwrap()).collect();
        let expires = Expiry::new(0).unwrap();
        let mut places = Vec::new();
        for round in 0..3 {
            places.clear();
            for (at, id) in ids.iter().enumerate() {
                places.push(table.insert(at as u64, &draft(id, expires, &"x".repeat(at), 0)));
            }
            let chunks = table.slab.chunks();
            for (at, place) in places.iter().enumerate() {
                table.remove(at as u64, *place);
            }
            assert!(round == 0 || table.slab.chunks() == chunks, "chunks are used again");
            table.slab.give_back();
            assert_eq!((table.len(), table.bytes, table.slab.chunks()), (0, 0, 0));
        }
    }
}
