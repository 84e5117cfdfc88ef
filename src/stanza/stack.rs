//! A stack that lies in place while it is short and on the heap beyond.

/// At most `N` items in place.
#[derive(Debug)]
pub(crate) struct Stack<T, const N: usize> {
    near: [T; N],
    far: Vec<T>,
    len: usize,
}

impl<T: Copy, const N: usize> Stack<T, N> {
    #[inline(always)]
    pub(crate) fn new(filler: T) -> Stack<T, N> {
        Stack {
            near: [filler; N],
            far: Vec::new(),
            len: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The far branch is not a function of its own: passing the item on would make the compiler
    /// build it in memory first, and the copy from there waits for the stores.
    #[inline(always)]
    pub(crate) fn push(&mut self, item: T) {
        if self.len < N {
            self.near[self.len] = item;
        } else {
            self.far.push(item);
        }
        self.len += 1;
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> T {
        if index < N {
            self.near[index]
        } else {
            self.far[index - N]
        }
    }

    #[inline(always)]
    pub(crate) fn last(&self) -> Option<T> {
        (self.len > 0).then(|| self.get(self.len - 1))
    }

    #[inline(always)]
    pub(crate) fn truncate(&mut self, len: usize) {
        if self.len > N {
            self.far.truncate(len.saturating_sub(N));
        }
        self.len = self.len.min(len);
    }

    /// The items, first to last.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.near[..self.len.min(N)].iter().chain(&self.far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_across_the_border() {
        let mut stack = Stack::<u32, 4>::new(0);
        for i in 0..10 {
            stack.push(i);
            assert_eq!(stack.last(), Some(i));
        }
        assert_eq!(
            stack.iter().copied().collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        stack.truncate(6);
        assert_eq!((stack.len(), stack.last()), (6, Some(5)));
        stack.truncate(2);
        stack.push(7);
        assert_eq!(stack.iter().copied().collect::<Vec<_>>(), [0, 1, 7]);
    }
}
