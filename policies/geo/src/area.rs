//! Which of the 13 areas of the world a client is in.
//!
//! By its country where that is known, with the United States and Canada halved at [`HALFWAY`]; else by its
//! origin: the area of the nearest of some cities.

use mrgc_policy_sdk::{Location, Request};

use super::world::AREAS;

/// An index into [`AREAS`].
pub(crate) type Area = usize;

const WNAM: Area = 0;
const ENAM: Area = 1;

/// Longitude that halves North America: the hundredth meridian, about as far from the data centres of
/// Oregon as from those of Virginia.
const HALFWAY: f64 = -100.0;

/// Finds areas.
#[derive(Debug)]
pub(crate) struct Atlas {
    /// By the country's two letters, A to Z each.
    by_country: Vec<Option<Area>>,
    /// On the unit sphere.
    cities: Vec<([f64; 3], Area)>,
}

impl Atlas {
    pub(crate) fn new() -> Self {
        let mut by_country = vec![None; 26 * 26];
        let mut cities = Vec::new();
        for (area, facts) in AREAS.iter().enumerate() {
            for country in facts.countries.split_whitespace().filter_map(country_index) {
                by_country[country] = Some(area);
            }
            for &(latitude, longitude) in facts.cities {
                cities.push((on_sphere(Location { latitude, longitude }), area));
            }
        }
        Self { by_country, cities }
    }

    /// None where neither a country nor an origin tells.
    pub(crate) fn area(&self, request: &Request) -> Option<Area> {
        let origin = request.origin.filter(is_on_earth);
        let country = request.country.as_deref();
        let by_country = country.and_then(country_index).and_then(|index| self.by_country[index]);
        match (country, origin) {
            (Some("US" | "CA"), Some(origin)) => Some(half_of_north_america(origin)),
            _ => by_country.or_else(|| self.nearest(origin?)),
        }
    }

    /// The area of the nearest city: the one whose direction from the centre of the earth is most alike.
    fn nearest(&self, origin: Location) -> Option<Area> {
        let [x, y, z] = on_sphere(origin);
        let alike = |city: &[f64; 3]| x * city[0] + y * city[1] + z * city[2];
        let nearest = self.cities.iter().max_by(|(a, _), (b, _)| alike(a).total_cmp(&alike(b)));
        nearest.map(|(_, area)| *area)
    }
}

pub(crate) fn named(name: &str) -> Option<Area> {
    AREAS.iter().position(|area| area.name == name)
}

/// The Aleutians reach over the date line, to the east.
fn half_of_north_america(origin: Location) -> Area {
    if origin.longitude < HALFWAY || origin.longitude > 0.0 { WNAM } else { ENAM }
}

fn country_index(country: &str) -> Option<usize> {
    match country.as_bytes() {
        [a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => {
            Some(usize::from(a - b'A') * 26 + usize::from(b - b'A'))
        }
        _ => None,
    }
}

fn is_on_earth(place: &Location) -> bool {
    (-90.0..=90.0).contains(&place.latitude) && (-180.0..=180.0).contains(&place.longitude)
}

fn on_sphere(place: Location) -> [f64; 3] {
    let (latitude, longitude) = (place.latitude.to_radians(), place.longitude.to_radians());
    let (up, out) = (latitude.sin(), latitude.cos());
    [out * longitude.cos(), out * longitude.sin(), up]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_country_is_in_one_area() {
        let mut all: Vec<&str> =
            AREAS.iter().flat_map(|area| area.countries.split_whitespace()).collect();
        assert!(all.iter().all(|country| country_index(country).is_some()));
        // ISO 3166-1 has 249; Kosovo is not among them.
        assert_eq!(all.len(), 250);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 250);
    }

    #[test]
    fn the_halves_of_north_america_are_the_first_two() {
        assert_eq!((AREAS[WNAM].name, AREAS[ENAM].name), ("WNAM", "ENAM"));
    }

    #[test]
    fn the_nearest_city_tells_the_area() {
        let atlas = Atlas::new();
        let cases = [
            ("Boston", 42.4, -71.1, "ENAM"),
            ("Houston", 29.8, -95.4, "ENAM"),
            ("Las Vegas", 36.2, -115.1, "WNAM"),
            ("Vancouver", 49.3, -123.1, "WNAM"),
            ("Kingston", 18.0, -76.8, "ENAM"),
            ("Medellín", 6.2, -75.6, "NSAM"),
            ("Montevideo", -34.9, -56.2, "SSAM"),
            ("Manchester", 53.5, -2.2, "WEU"),
            ("Stuttgart", 48.8, 9.2, "WEU"),
            ("Sofia", 42.7, 23.3, "EEU"),
            ("Vladivostok", 43.1, 131.9, "EEU"),
            ("Cairo", 30.0, 31.2, "NAF"),
            ("Doha", 25.3, 51.5, "ME"),
            ("Durban", -29.9, 31.0, "SAF"),
            ("Hyderabad", 17.4, 78.5, "SAS"),
            ("Penang", 5.4, 100.3, "SEAS"),
            ("Shenzhen", 22.5, 114.1, "NEAS"),
            ("Adelaide", -34.9, 138.6, "OC"),
            ("Nukuʻalofa, over the date line", -21.1, -175.2, "OC"),
        ];
        for (city, latitude, longitude, expected) in cases {
            let area = atlas.nearest(Location { latitude, longitude });
            assert_eq!(area.map(|area| AREAS[area].name), Some(expected), "{city}");
        }
    }

    #[test]
    fn north_america_is_halved() {
        for (longitude, expected) in [(-122.3, WNAM), (-87.6, ENAM), (-157.9, WNAM), (173.0, WNAM)]
        {
            assert_eq!(half_of_north_america(Location { latitude: 50.0, longitude }), expected);
        }
    }
}
