//! The table and the index against plain models of them: for the tests, and for cargo-fuzz (`fuzz/`).

use std::collections::{BTreeMap, BTreeSet};

use super::byte_count::ByteCount;
use super::index::{self, Index, VALUE_BITS};
use super::record::NewRecord;
use super::slab::{Layout, Moved};
use super::slot::Slot;
use super::table::Table;
use crate::session::{Body, Content, ExpiresForm, Expiry, Session, SessionId, UserKeyBuf};

/// Decisions from bytes, and 0 where there are no more.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

/// What the model has of a session.
struct Known {
    slot: Slot,
    created: u64,
    expires: Expiry,
    text: String,
}

/// Few hashes, so that they collide.
fn hash_of(number: usize) -> u64 {
    (number as u64 % 5) << 61
}

/// Takes note of a record that a removal has moved.
fn follow(table: &mut Table, model: &mut BTreeMap<usize, Known>, moved: Option<Moved>) {
    let Some(moved) = moved else { return };
    let (number, known) = model.iter_mut().find(|(_, known)| known.slot == moved.from).unwrap();
    known.slot = moved.to;
    table.moved(hash_of(*number), moved);
}

/// Creates, updates, touches and removes sessions in a table and in a map, as `bytes` say.
///
/// # Panics
/// If the two do not agree.
pub fn check_table(bytes: &[u8]) {
    let mut choices = Choices(bytes.iter());
    let bytes = ByteCount::default();
    let layout = [Layout::Plain, Layout::Dense, Layout::WithUses][choices.next() % 3];
    let (mut table, mut model) = (Table::new(layout, bytes.clone()), BTreeMap::new());
    let mut created = 0;
    while !choices.is_over() {
        let (op, number) = (choices.next() % 8, choices.next());
        let id = SessionId::new(&format!("{number:02x}")).unwrap();
        let hash = hash_of(number);
        let found = table.find(hash, &id).map(|(slot, _)| slot);
        assert_eq!(found, model.get(&number).map(|known: &Known| known.slot));
        match (op, found) {
            (0..3, None) => {
                let (expires, text) = content(&mut choices);
                let slot = table.insert(hash, &new_record(&id, expires, &text, created));
                model.insert(number, Known { slot, created, expires, text });
                created += 1;
            }
            (0..3, Some(slot)) => {
                let known = model.get_mut(&number).unwrap();
                (known.expires, known.text) = content(&mut choices);
                let new = new_record(&id, known.expires, &known.text, known.created);
                let (slot, moved) = table.replace(hash, slot, &new);
                known.slot = slot;
                follow(&mut table, &mut model, moved);
            }
            (3, Some(slot)) => {
                let expires = Expiry::moved_to(choices.next() as i64).unwrap();
                let record = table.slab().get(slot);
                record.move_expires(record.expires(), expires).unwrap();
                model.get_mut(&number).unwrap().expires = expires;
            }
            (4..7, Some(slot)) => {
                let moved = table.remove(hash, slot);
                model.remove(&number);
                assert_eq!(table.slab().is_used(slot), moved.is_some());
                follow(&mut table, &mut model, moved);
            }
            (7, _) => table.give_back(),
            _ => {}
        }
    }
    compare(&table, &model);
    assert!(model.is_empty() || bytes.total() > 0);
    drop(table.detach());
    assert_eq!((table.len(), bytes.total()), (0, 0));
}

fn compare(table: &Table, model: &BTreeMap<usize, Known>) {
    assert_eq!(table.len(), model.len());
    let scan = (0..table.slab().chunks()).flat_map(|chunk| table.slab().slots(chunk));
    let scanned: BTreeSet<u32> = scan.map(Slot::to_bits).collect();
    assert_eq!(scanned, model.values().map(|known| known.slot.to_bits()).collect());
    for known in model.values() {
        assert!(table.slab().is_used(known.slot));
        let record = table.slab().get(known.slot);
        assert_eq!((record.created(), record.expires()), (known.created, known.expires));
        let body = Body::Json { text: &known.text, expires: ExpiresForm::Text };
        assert_eq!(record.content().unwrap().body, body);
    }
}

/// Content of all sizes: many records to a chunk, few, and a chunk for each.
fn content(choices: &mut Choices<'_>) -> (Expiry, String) {
    let len = match choices.next() {
        few @ 0..200 => few,
        many @ 200..250 => (many - 199) * 40,
        large => (large - 249) * 16_000,
    };
    (Expiry::new(choices.next() as i64).unwrap(), "x".repeat(len))
}

fn new_record(id: &SessionId, expires: Expiry, text: &str, created: u64) -> NewRecord {
    let user = UserKeyBuf::from_text("ann");
    let body = Body::Json { text, expires: ExpiresForm::Text };
    NewRecord::new(
        &Session { id: id.clone(), expires, content: Content { user: Some(user.as_key()), body } },
        created,
    )
}

/// A walk through an index by its pages, while the index changes.
#[derive(Default)]
struct Walk {
    from: u64,
    /// What was there when it began, and is there yet.
    staying: BTreeSet<(u64, u64)>,
    seen: BTreeSet<(u64, u64)>,
}

impl Walk {
    /// Takes a page. At the end, what stayed was seen.
    fn step(&mut self, index: &Index, count: usize, model: &BTreeSet<(u64, u64)>) {
        if self.from == 0 {
            *self = Self { staying: model.clone(), ..Self::default() };
        }
        let (values, next) = index.page(self.from, count);
        assert!(next.is_none() || values.len() >= count);
        for (tag, value) in values {
            assert!(tag >= self.from && next.is_none_or(|next| tag < next));
            assert!(self.seen.insert((tag << VALUE_BITS, value)), "given twice");
        }
        self.from = next.unwrap_or(0);
        if next.is_none() {
            assert!(self.staying.is_subset(&self.seen), "missed");
        }
    }
}

/// Adds values to an index and to a set, removes them, and walks through them, as `bytes` say.
///
/// # Panics
/// If the two do not agree.
pub fn check_index(bytes: &[u8]) {
    let (mut index, mut model, mut walk) = (Index::default(), BTreeSet::new(), Walk::default());
    for pair in bytes.chunks_exact(2) {
        // The first and the last tags, so that runs go over the end.
        let hash = (u64::from(pair[0]) % 64).wrapping_sub(32) << VALUE_BITS;
        let value = u64::from(pair[1] % 64) + 1;
        if pair[1] < 160 {
            if model.insert((hash, value)) {
                index.insert(hash, value);
            }
        } else {
            assert_eq!(index.remove(hash, value), model.remove(&(hash, value)));
            walk.staying.remove(&(hash, value));
        }
        if pair[0] >= 192 {
            walk.step(&index, 1 + usize::from(pair[1] % 16), &model);
        }
        let of_hash = |model: &BTreeSet<(u64, u64)>| {
            model.range((hash, 0)..=(hash, u64::MAX)).map(|(_, value)| *value).collect::<BTreeSet<_>>()
        };
        let found: Vec<u64> = index.find(hash).collect();
        assert_eq!(found.len(), of_hash(&model).len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), of_hash(&model));
    }
    assert_eq!(index.len(), model.len());
    assert!(model.iter().all(|(hash, value)| {
        index::tag(*hash) == *hash >> VALUE_BITS && index.find(*hash).any(|found| found == *value)
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
    fn an_index_grows_and_shrinks_with_its_values() {
        let mut index = Index::default();
        let hash = |value: u64| value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let values = if cfg!(miri) { 1..500 } else { 1..50_000 };
        for value in values.clone() {
            index.insert(hash(value), value);
            assert!(index.len() * 6 <= index.size() * 5);
        }
        assert!(index.len() * 3 > index.size() * 2 - 16);
        for value in values {
            assert!(index.find(hash(value)).any(|found| found == value));
            assert!(index.remove(hash(value), value));
        }
        assert_eq!((index.len(), index.size()), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn a_table_gives_memory_back_and_uses_slots_again() {
        let bytes = ByteCount::default();
        let mut table = Table::new(Layout::Plain, bytes.clone());
        let ids: Vec<SessionId> = (0..1000).map(|at| SessionId::new(&format!("{at:04x}")).unwrap()).collect();
        let expires = Expiry::new(0).unwrap();
        let mut slots = Vec::new();
        for round in 0..3 {
            slots.clear();
            for (at, id) in ids.iter().enumerate() {
                slots.push(table.insert(at as u64, &new_record(id, expires, &"x".repeat(at), 0)));
            }
            let chunks = table.slab().chunks();
            for (at, slot) in slots.iter().enumerate() {
                table.remove(at as u64, *slot);
            }
            assert!(round == 0 || table.slab().chunks() == chunks, "chunks are used again");
            table.give_back();
            assert_eq!((table.len(), table.slab().chunks(), bytes.total()), (0, 0, 0));
        }
    }

    /// Every third record of each size stays, wherever the others were.
    #[test]
    #[cfg_attr(miri, ignore = "it would take hours")]
    fn a_dense_table_takes_little_more_than_its_records() {
        let bytes = ByteCount::default();
        let mut table = Table::new(Layout::Dense, bytes.clone());
        let expires = Expiry::new(0).unwrap();
        let mut model = BTreeMap::new();
        for number in 0..30_000 {
            let (id, text) = (SessionId::new(&number.to_string()).unwrap(), "x".repeat(number % 600));
            let slot = table.insert(hash_of(number), &new_record(&id, expires, &text, number as u64));
            model.insert(number, Known { slot, created: number as u64, expires, text });
        }
        for number in (0..30_000).filter(|number| number % 3 != 0) {
            let known = model.remove(&number).unwrap();
            let moved = table.remove(hash_of(number), known.slot);
            follow(&mut table, &mut model, moved);
        }
        compare(&table, &model);
        // What they take includes the index and the list of chunks, which were made for three times as many.
        let cost: usize = table.slab().records().map(|record| record.cost()).sum();
        assert!(bytes.total() < cost + cost / 5, "{} bytes for {cost}", bytes.total());
    }
}
