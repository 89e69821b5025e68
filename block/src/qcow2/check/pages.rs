//! Numbers for the clusters of an image, kept only where there are any, in bounded memory.
//!
//! Plain data. Which clusters are touched is chosen by whoever made the image: far apart, each
//! costs a page, so all pages together have a budget.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// Clusters of a page.
const PAGE: u64 = 1024;

/// Bytes that may still be used.
#[derive(Clone)]
pub(super) struct Budget(Rc<Cell<usize>>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget(Rc::new(Cell::new(bytes)))
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.get().checked_sub(bytes).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the image uses more clusters than can be counted in memory",
            )
        })?;
        self.0.set(left);
        Ok(())
    }
}

/// A number for each cluster; zero at first.
pub(super) struct Pages<T> {
    pages: BTreeMap<u64, Box<[T]>>,
    budget: Budget,
}

impl<T: Copy + Default + PartialEq> Pages<T> {
    pub(super) fn new(budget: &Budget) -> Pages<T> {
        Pages { pages: BTreeMap::new(), budget: budget.clone() }
    }

    /// The number of a cluster.
    pub(super) fn get(&self, index: u64) -> T {
        let page = self.pages.get(&(index / PAGE));
        page.and_then(|page| page.get((index % PAGE) as usize)).copied().unwrap_or_default()
    }

    /// Changes the numbers of `count` clusters from `first` on.
    ///
    /// # Errors
    /// When the budget is used up.
    pub(super) fn change(
        &mut self,
        first: u64,
        count: u64,
        mut change: impl FnMut(&mut T),
    ) -> io::Result<()> {
        let end = first.saturating_add(count);
        let mut at = first;
        while at < end {
            let stop = ((at / PAGE + 1) * PAGE).min(end);
            let range = (at % PAGE) as usize..((stop - 1) % PAGE) as usize + 1;
            let page = match self.pages.entry(at / PAGE) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    // The tree's own part is an estimate.
                    self.budget.take(PAGE as usize * size_of::<T>() + 64)?;
                    place.insert(vec![T::default(); PAGE as usize].into())
                }
            };
            page.get_mut(range).into_iter().flatten().for_each(&mut change);
            at = stop;
        }
        Ok(())
    }

    /// The first cluster from `from` on with a number other than zero.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        for (page, numbers) in self.pages.range(from / PAGE..) {
            let skip = from.saturating_sub(page * PAGE) as usize;
            let mut rest = numbers.iter().enumerate().skip(skip);
            if let Some((at, _)) = rest.find(|(_, number)| **number != T::default()) {
                return Some(page * PAGE + at as u64);
            }
        }
        None
    }

    /// The last cluster with a number other than zero.
    pub(super) fn last(&self) -> Option<u64> {
        self.pages.iter().rev().find_map(|(page, numbers)| {
            let at = numbers.iter().rposition(|number| *number != T::default())?;
            Some(page * PAGE + at as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_where_they_are() {
        let mut pages = Pages::new(&Budget::new(1 << 20));
        pages.change(1020, 10, |number: &mut u32| *number += 1).unwrap();
        pages.change(1 << 50, 1, |number| *number += 2).unwrap();
        assert_eq!((pages.get(1019), pages.get(1020), pages.get(1029)), (0, 1, 1));
        assert_eq!((pages.get(1030), pages.get(1 << 50)), (0, 2));
        assert_eq!(pages.next(0), Some(1020));
        assert_eq!(pages.next(1025), Some(1025));
        assert_eq!(pages.next(1030), Some(1 << 50));
        assert_eq!(pages.next((1 << 50) + 1), None);
        assert_eq!(pages.last(), Some(1 << 50));
        pages.change(1 << 50, 1, |number| *number = 0).unwrap();
        assert_eq!(pages.last(), Some(1029));
    }

    #[test]
    fn memory_is_bounded() {
        let mut pages = Pages::new(&Budget::new(10_000));
        pages.change(0, 2048, |number: &mut u32| *number = 1).unwrap();
        let error = pages.change(1 << 40, 1, |number| *number = 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
