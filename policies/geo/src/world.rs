//! The 13 areas, as data. Their codes are those of Cloudflare's load balancer regions; what is in them is ours.
//!
//! Countries follow the UN's regions, with these differences. Central America and the Caribbean land
//! their cables in Florida: ENAM. The Baltic and Balkan states, Greece, Cyprus, the Caucasus and Central Asia
//! are EEU, all of Russia with them; Iran is ME. Africa is halved: north, west and the Horn are NAF.

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) name: &'static str,
    /// ISO 3166-1 alpha-2, and `XK`, which geolocation gives for Kosovo.
    pub(crate) countries: &'static str,
    /// Where most clients are: latitude and longitude.
    pub(crate) cities: &'static [(f64, f64)],
}

#[rustfmt::skip]
pub(crate) const AREAS: [Facts; 13] = [
    Facts {
        name: "WNAM",
        countries: "MX",
        cities: &[
            (37.8, -122.4), // San Francisco
            (34.1, -118.2), // Los Angeles
            (47.6, -122.3), // Seattle
            (33.4, -112.1), // Phoenix
            (39.7, -105.0), // Denver
            (51.0, -114.1), // Calgary
            (19.4, -99.1), // Mexico City
            (61.2, -149.9), // Anchorage
            (21.3, -157.9), // Honolulu
        ],
    },
    Facts {
        name: "ENAM",
        countries: "AG AI BB BL BM BS BZ CA CR CU DM DO GD GL GP GT HN HT JM KN KY LC MF MQ \
                    MS NI PA PM PR SV TC US VC VG VI",
        cities: &[
            (40.7, -74.0), // New York
            (33.7, -84.4), // Atlanta
            (41.9, -87.6), // Chicago
            (32.8, -96.8), // Dallas
            (49.9, -97.1), // Winnipeg
            (43.7, -79.4), // Toronto
            (44.6, -63.6), // Halifax
            (64.2, -51.7), // Nuuk
            (25.8, -80.2), // Miami
            (18.5, -66.1), // San Juan
            (9.0, -79.5), // Panama
        ],
    },
    Facts {
        name: "WEU",
        countries: "AD AT AX BE CH DE DK ES FI FO FR GB GG GI IE IM IS IT JE LI LU MC MT NL \
                    NO PT SE SJ SM VA",
        cities: &[
            (51.5, -0.1), // London
            (53.3, -6.2), // Dublin
            (48.9, 2.3), // Paris
            (40.4, -3.7), // Madrid
            (38.7, -9.1), // Lisbon
            (50.1, 8.7), // Frankfurt
            (52.5, 13.4), // Berlin
            (48.2, 16.4), // Vienna
            (41.9, 12.5), // Rome
            (59.3, 18.1), // Stockholm
            (59.9, 10.8), // Oslo
            (60.2, 24.9), // Helsinki
            (69.6, 18.9), // Tromsø
            (64.1, -21.9), // Reykjavik
            (48.1, 11.6), // Munich
            (45.5, 9.2), // Milan
            (41.4, 2.2), // Barcelona
        ],
    },
    Facts {
        name: "EEU",
        countries: "AL AM AZ BA BG BY CY CZ EE GE GR HR HU KG KZ LT LV MD ME MK PL RO RS RU \
                    SI SK TJ TM UA UZ XK",
        cities: &[
            (52.2, 21.0), // Warsaw
            (50.1, 14.4), // Prague
            (45.8, 16.0), // Zagreb
            (47.5, 19.0), // Budapest
            (38.0, 23.7), // Athens
            (44.4, 26.1), // Bucharest
            (56.9, 24.1), // Riga
            (50.5, 30.5), // Kyiv
            (59.9, 30.3), // Saint Petersburg
            (55.8, 37.6), // Moscow
            (41.7, 44.8), // Tbilisi
            (56.8, 60.6), // Yekaterinburg
            (41.3, 69.2), // Tashkent
            (43.2, 76.9), // Almaty
            (55.0, 82.9), // Novosibirsk
            (52.3, 104.3), // Irkutsk
            (62.0, 129.7), // Yakutsk
            (48.5, 135.1), // Khabarovsk
            (43.1, 131.9), // Vladivostok
        ],
    },
    Facts {
        name: "NSAM",
        countries: "AW BQ CO CW EC GF GY PE SR SX TT VE",
        cities: &[
            (4.7, -74.1), // Bogotá
            (10.5, -66.9), // Caracas
            (-0.2, -78.5), // Quito
            (-12.0, -77.0), // Lima
            (6.8, -58.2), // Georgetown
        ],
    },
    Facts {
        name: "SSAM",
        countries: "AR BO BR BV CL FK GS PY UY",
        cities: &[
            (-23.6, -46.6), // São Paulo
            (-22.9, -43.2), // Rio de Janeiro
            (-15.8, -47.9), // Brasília
            (-3.7, -38.5), // Fortaleza
            (-3.1, -60.0), // Manaus
            (-1.5, -48.5), // Belém
            (-34.6, -58.4), // Buenos Aires
            (-33.4, -70.7), // Santiago
            (-16.5, -68.1), // La Paz
            (-54.8, -68.3), // Ushuaia
        ],
    },
    Facts {
        name: "OC",
        countries: "AQ AS AU CC CK CX FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TK \
                    TO TV UM VU WF WS",
        cities: &[
            (-33.9, 151.2), // Sydney
            (-37.8, 145.0), // Melbourne
            (-27.5, 153.0), // Brisbane
            (-31.9, 115.9), // Perth
            (-12.5, 130.8), // Darwin
            (-36.8, 174.8), // Auckland
            (-9.4, 147.2), // Port Moresby
            (-18.1, 178.4), // Suva
            (13.5, 144.8), // Guam
            (-17.5, -149.6), // Papeete
        ],
    },
    Facts {
        name: "ME",
        countries: "AE BH IL IQ IR JO KW LB OM PS QA SA SY TR YE",
        cities: &[
            (41.0, 29.0), // Istanbul
            (39.9, 32.9), // Ankara
            (32.1, 34.8), // Tel Aviv
            (33.3, 44.4), // Baghdad
            (35.7, 51.4), // Tehran
            (24.7, 46.7), // Riyadh
            (21.5, 39.2), // Jeddah
            (25.2, 55.3), // Dubai
            (23.6, 58.4), // Muscat
            (15.4, 44.2), // Sanaa
        ],
    },
    Facts {
        name: "NAF",
        countries: "BF BJ CF CI CM CV DJ DZ EG EH ER ET GH GM GN GW LR LY MA ML MR NE NG SD \
                    SL SN SO SS TD TG TN",
        cities: &[
            (30.0, 31.2), // Cairo
            (36.8, 10.2), // Tunis
            (36.8, 3.1), // Algiers
            (33.6, -7.6), // Casablanca
            (32.9, 13.2), // Tripoli
            (14.7, -17.4), // Dakar
            (5.6, -0.2), // Accra
            (6.5, 3.4), // Lagos
            (15.5, 32.6), // Khartoum
            (9.0, 38.7), // Addis Ababa
        ],
    },
    Facts {
        name: "SAF",
        countries: "AO BI BW CD CG GA GQ KE KM LS MG MU MW MZ NA RE RW SC SH ST SZ TF TZ UG \
                    YT ZA ZM ZW",
        cities: &[
            (-26.2, 28.0), // Johannesburg
            (-33.9, 18.4), // Cape Town
            (-22.6, 17.1), // Windhoek
            (-8.8, 13.2), // Luanda
            (-4.3, 15.3), // Kinshasa
            (-17.8, 31.0), // Harare
            (-6.8, 39.3), // Dar es Salaam
            (-1.3, 36.8), // Nairobi
            (-18.9, 47.5), // Antananarivo
            (-20.2, 57.5), // Port Louis
        ],
    },
    Facts {
        name: "SAS",
        countries: "AF BD BT IN IO LK MV NP PK",
        cities: &[
            (19.1, 72.9), // Mumbai
            (28.6, 77.2), // Delhi
            (13.0, 77.6), // Bengaluru
            (13.1, 80.3), // Chennai
            (22.6, 88.4), // Kolkata
            (24.9, 67.0), // Karachi
            (31.5, 74.3), // Lahore
            (34.5, 69.2), // Kabul
            (23.8, 90.4), // Dhaka
            (6.9, 79.9), // Colombo
        ],
    },
    Facts {
        name: "SEAS",
        countries: "BN ID KH LA MM MY PH SG TH TL VN",
        cities: &[
            (1.3, 103.8), // Singapore
            (-6.2, 106.8), // Jakarta
            (-8.7, 115.2), // Denpasar
            (-5.1, 119.4), // Makassar
            (3.1, 101.7), // Kuala Lumpur
            (13.8, 100.5), // Bangkok
            (16.8, 96.2), // Yangon
            (10.8, 106.7), // Ho Chi Minh City
            (21.0, 105.8), // Hanoi
            (14.6, 121.0), // Manila
            (7.1, 125.6), // Davao
        ],
    },
    Facts {
        name: "NEAS",
        countries: "CN HK JP KP KR MN MO TW",
        cities: &[
            (35.7, 139.7), // Tokyo
            (34.7, 135.5), // Osaka
            (43.1, 141.4), // Sapporo
            (37.6, 127.0), // Seoul
            (39.9, 116.4), // Beijing
            (31.2, 121.5), // Shanghai
            (45.8, 126.5), // Harbin
            (34.3, 108.9), // Xi'an
            (30.7, 104.1), // Chengdu
            (43.8, 87.6), // Ürümqi
            (22.3, 114.2), // Hong Kong
            (25.0, 121.5), // Taipei
            (47.9, 106.9), // Ulaanbaatar
        ],
    },
];
