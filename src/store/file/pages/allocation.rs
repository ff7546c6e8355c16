//! Predicts how many new pages LMDB takes when the free pages are scattered.

use super::Free;

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
/// reads the next list only if none fit. So it may split a range of free pages before it has read the whole range.
struct Allocator<'f> {
    /// The first page and the length of each range of free pages, in ascending order.
    ranges: Vec<(u64, u64)>,
    unread: std::slice::Iter<'f, Vec<u64>>,
}

impl<'f> Allocator<'f> {
    fn new(free: &'f Free) -> Self {
        Self { ranges: Vec::new(), unread: free.lists.iter() }
    }

    /// Takes runs of these lengths. Returns the number of pages in the runs that did not fit.
    fn lacking(mut self, runs: Vec<u64>) -> u64 {
        runs.into_iter().filter(|run| !self.take(*run)).sum()
    }

    fn take(&mut self, run: u64) -> bool {
        loop {
            if let Some(at) = self.ranges.iter().position(|(_, length)| *length >= run) {
                let (first, length) = &mut self.ranges[at];
                (*first, *length) = (*first + run, *length - run);
                if *length == 0 {
                    self.ranges.remove(at);
                }
                return true;
            }
            let Some(list) = self.unread.next() else { return false };
            self.add(list);
        }
    }

    fn add(&mut self, list: &[u64]) {
        self.ranges.extend(list.iter().map(|page| (*page, 1)));
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|(first, length), (before, sum)| {
            let is_adjacent = *before + *sum == *first;
            *sum += if is_adjacent { *length } else { 0 };
            is_adjacent
        });
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
}
