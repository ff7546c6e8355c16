//! Predicts how many new pages LMDB takes when the free pages are scattered.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::Free;

/// So many more lists LMDB reads for each page of a run. Then it takes new pages.
const LISTS_PER_PAGE: u64 = 60;

impl Free {
    /// The number of pages by which the file must grow for these single pages and runs of adjacent pages. It depends
    /// on the order in which LMDB takes them. Returns the worst result of three orders.
    pub fn lacking(&self, singles: u64, runs: &[u64]) -> u64 {
        if runs.is_empty() {
            return singles.saturating_sub(self.listed());
        }
        let singles = vec![1; singles as usize];
        let per_run = singles.len().div_ceil(runs.len()).max(1);
        let groups = singles.chunks(per_run).chain(std::iter::repeat(&[][..]));
        let mixed = runs.iter().zip(groups).flat_map(|(run, singles)| [singles, &[*run]].concat());
        let orders = [[&singles, runs].concat(), [runs, &singles].concat(), mixed.collect()];
        orders.into_iter().map(|order| Allocator::new(self).lacking(order)).max().unwrap_or(0)
    }
}

/// Takes pages as LMDB's `mdb_page_alloc` does: the lowest ones that fit, of the lists that it has read so far. It
/// reads the next list only if none fit, and gives up after some lists. So it may split a range of free pages before it
/// has read the whole range.
struct Allocator<'f> {
    /// The length of each range of free pages, by its first page.
    ranges: BTreeMap<u64, u64>,
    /// The first pages of the ranges, by length.
    by_length: BTreeMap<u64, BTreeSet<u64>>,
    /// The number of pages in the ranges.
    pages: u64,
    unread: std::slice::Iter<'f, Vec<u64>>,
}

impl<'f> Allocator<'f> {
    fn new(free: &'f Free) -> Self {
        let (ranges, by_length) = Default::default();
        Self { ranges, by_length, pages: 0, unread: free.lists.iter() }
    }

    /// Takes runs of these lengths. Returns the number of pages in the runs that did not fit.
    fn lacking(mut self, runs: Vec<u64>) -> u64 {
        runs.into_iter().filter(|run| !self.take(*run)).sum()
    }

    fn take(&mut self, run: u64) -> bool {
        let mut lists = LISTS_PER_PAGE * run;
        loop {
            let fitting =
                self.by_length.range(run..).filter_map(|(length, all)| Some((*all.first()?, *length)));
            if let Some((first, length)) = fitting.min() {
                self.remove(first, length);
                if length > run {
                    self.insert(first + run, length - run);
                }
                self.pages -= run;
                return true;
            }
            if self.pages >= run {
                let Some(left) = lists.checked_sub(1) else { return false };
                lists = left;
            }
            let Some(list) = self.unread.next() else { return false };
            list.iter().for_each(|page| self.add(*page));
        }
    }

    /// Adds a page, and joins it to its neighbours.
    fn add(&mut self, page: u64) {
        let (mut first, mut length) = (page, 1);
        let before = self.ranges.range(..page).next_back().map(|(first, length)| (*first, *length));
        if let Some((start, pages)) = before.filter(|(start, pages)| page - start == *pages) {
            self.remove(start, pages);
            (first, length) = (start, pages + 1);
        }
        // The number of a damaged list may be the highest one.
        let next = page.checked_add(1).and_then(|next| self.ranges.get_key_value(&next));
        if let Some((start, pages)) = next.map(|(start, pages)| (*start, *pages)) {
            self.remove(start, pages);
            length += pages;
        }
        self.insert(first, length);
        self.pages += 1;
    }

    fn insert(&mut self, first: u64, length: u64) {
        self.ranges.insert(first, length);
        self.by_length.entry(length).or_default().insert(first);
    }

    fn remove(&mut self, first: u64, length: u64) {
        self.ranges.remove(&first);
        if let Entry::Occupied(mut all) = self.by_length.entry(length) {
            all.get_mut().remove(&first);
            if all.get().is_empty() {
                all.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(lists: &[&[u64]]) -> Free {
        Free { lists: lists.iter().map(|list| list.to_vec()).collect(), pending: 7 }
    }

    #[test]
    fn runs_need_adjacent_free_pages() {
        let free = free(&[&[9, 10, 20], &[3, 4, 5]]);
        assert_eq!(free.lacking(6, &[]), 0);
        assert_eq!(free.lacking(8, &[]), 2);
        assert_eq!(free.lacking(0, &[3, 2, 1]), 0);
        assert_eq!(free.lacking(1, &[3]), 0);
        assert_eq!(free.lacking(4, &[3]), 3);
        assert_eq!(free.lacking(1, &[2, 2]), 2);
        assert_eq!(free.lacking(0, &[4]), 4);
        assert_eq!(Free::default().lacking(2, &[3]), 5);
    }

    #[test]
    fn a_range_is_split_before_all_of_it_is_read() {
        assert_eq!(free(&[&[1, 2, 3, 4, 5, 6]]).lacking(0, &[3, 3]), 0);
        assert_eq!(free(&[&[2, 3, 4], &[1, 5, 6]]).lacking(0, &[3, 3]), 3);
    }

    #[test]
    fn lists_are_read_up_to_a_number() {
        let lists = |scattered: u64| {
            let scattered = (0..scattered).map(|at| vec![10 + 2 * at]);
            Free { lists: scattered.chain([vec![1, 2]]).collect(), pending: 0 }
        };
        // The first list alone has no room for two pages, so LMDB does not count it.
        assert_eq!(lists(121).lacking(0, &[2]), 0);
        assert_eq!(lists(122).lacking(0, &[2]), 2);
        assert_eq!(lists(122).lacking(0, &[2, 2]), 2);
    }

    #[test]
    fn any_numbers_in_damaged_lists_end_in_an_answer() {
        let free = free(&[&[5, 5, 6], &[0, u64::MAX - 1, u64::MAX, u64::MAX], &[4, 5, 7]]);
        assert_eq!(free.lacking(1, &[100]), 100);
        (1..12).for_each(|run| assert!(free.lacking(12, &[run, run]) <= 12 + 2 * run));
    }

    /// The writes of a batch wait for this prediction. It must not look at all ranges for each list and each run.
    #[test]
    fn many_lists_and_runs_are_predicted() {
        let lists = (0..5000).map(|list| (0..10).map(|at| 2 * (5000 * at + list)).collect());
        let free = Free { lists: lists.collect(), pending: 0 };
        assert_eq!(free.lacking(2000, &[3; 1000]), 3000);
    }
}
