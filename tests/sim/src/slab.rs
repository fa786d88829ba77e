//! Things under way, by a name that is never used again.

/// Names one thing of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    serial: u32,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    serial: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { serial: 0, value: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.value = Some(value);
        Key { slot, serial: place.serial }
    }

    /// `None` once it was removed.
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.value.as_ref().filter(|_| slot.serial == key.serial)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.value.as_mut().filter(|_| slot.serial == key.serial)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot =
            self.slots.get_mut(key.slot as usize).filter(|slot| slot.serial == key.serial)?;
        let value = slot.value.take()?;
        slot.serial += 1;
        self.free.push(key.slot);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(slot, place)| {
            Some((Key { slot, serial: place.serial }, place.value.as_ref()?))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_what_is_gone_means_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b');
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        assert_eq!((slab.remove(a), slab.len()), (None, 1));
        assert_eq!(slab.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), [(b, 'b')]);
    }
}
