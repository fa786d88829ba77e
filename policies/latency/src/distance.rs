//! Distance on the globe.

use mrgc_policy_sdk::Location;

/// Mean radius (IUGG).
const EARTH_KM: f64 = 6371.0088;

/// Length of the great circle between two places, by the haversine formula. None where either is no
/// place on earth.
pub(crate) fn great_circle_km(from: Location, to: Location) -> Option<f64> {
    if !(is_on_earth(from) && is_on_earth(to)) {
        return None;
    }
    let (from_latitude, to_latitude) = (from.latitude.to_radians(), to.latitude.to_radians());
    let half_rise = ((to_latitude - from_latitude) / 2.0).sin();
    let half_turn = ((to.longitude - from.longitude).to_radians() / 2.0).sin();
    let haversine =
        half_rise * half_rise + from_latitude.cos() * to_latitude.cos() * half_turn * half_turn;
    // Rounding may take antipodes a little above 1, where the arc sine ends.
    Some(2.0 * EARTH_KM * haversine.sqrt().min(1.0).asin())
}

fn is_on_earth(place: Location) -> bool {
    (-90.0..=90.0).contains(&place.latitude) && (-180.0..=180.0).contains(&place.longitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn km(from: (f64, f64), to: (f64, f64)) -> Option<f64> {
        let place = |(latitude, longitude)| Location { latitude, longitude };
        great_circle_km(place(from), place(to))
    }

    #[test]
    fn known_distances() {
        let berlin = (52.5, 13.4);
        let cases = [
            (berlin, berlin, 0.0),
            (berlin, (53.3, -6.2), 1314.0),
            (berlin, (37.4, -77.5), 6859.0),
            ((0.0, 179.0), (0.0, -179.0), 222.4),
            ((90.0, 0.0), (-90.0, 0.0), 20015.1),
            ((0.0, 0.0), (0.0, 180.0), 20015.1),
        ];
        for (from, to, expected) in cases {
            let got = km(from, to).expect("two places");
            assert!((got - expected).abs() < 1.0, "{from:?} to {to:?}: {got} km, not {expected}");
            assert_eq!(km(to, from), Some(got));
        }
    }

    #[test]
    fn no_place_has_no_distance() {
        for place in [(91.0, 0.0), (0.0, -181.0), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(km(place, (0.0, 0.0)), None, "{place:?}");
            assert_eq!(km((0.0, 0.0), place), None, "{place:?}");
        }
    }
}
