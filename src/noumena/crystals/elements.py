"""The chemical elements: symbols, masses, electronegativities, radii, and their place in the periodic table."""

_WORDS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y "
    "Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os "
    "Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn "
    "Nh Fl Mc Lv Ts Og"
)

SYMBOLS: tuple[str, ...] = tuple(_WORDS.split())
"""Symbol of each atomic number; number 0, ``X``, is none."""

NUMBERS: dict[str, int] = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}
"""Atomic number of each symbol."""


def _table(words: str, of_none: float) -> tuple[float, ...]:
    """Values by atomic number; number 0, and what the table does not hold, gets ``of_none``."""
    values = [of_none, *(float(word) for word in words.split())]
    return (*values, *([of_none] * (len(SYMBOLS) - len(values))))


MASSES: tuple[float, ...] = _table(
    (
        "1.008 4.0026 6.94 9.0122 10.81 12.011 14.007 15.999 18.9984 20.1797 22.9898 24.305 26.9815 28.085 "
        "30.9738 32.06 35.45 39.948 39.0983 40.078 44.9559 47.867 50.9415 51.9961 54.938 55.845 58.9332 58.6934 "
        "63.546 65.38 69.723 72.63 74.9216 78.971 79.904 83.798 85.4678 87.62 88.9058 91.224 92.9064 95.95 "
        "97.9072 101.07 102.9055 106.42 107.8682 112.414 114.818 118.71 121.76 127.6 126.9045 131.293 132.9055 "
        "137.327 138.9055 140.116 140.9077 144.242 144.9128 150.36 151.964 157.25 158.9254 162.5 164.9303 167.259 "
        "168.9342 173.054 174.9668 178.49 180.9479 183.84 186.207 190.23 192.217 195.084 196.9666 200.592 204.38 "
        "207.2 208.9804 208.9824 209.9872 222.0176 223.0197 226.0254 227.0277 232.0377 231.0359 238.0289 237.0482 "
        "244.0642 243.0614 247.0703 247.0703 251.0796 252.083 257.0951 258.0984 259.101 262.11 267.122 268.126 "
        "271.134 270.133 269.1338 278.156 281.165 281.166 285.177 286.182 289.19 289.194 293.204 293.208 294.214 "
    ),
    0.0,
)
"""Standard atomic weight of each atomic number in u (IUPAC 2016, conventional values where it is an interval; of the
longest-lived isotope where there is none)."""

ELECTRONEGATIVITIES: tuple[float, ...] = _table(
    (
        "2.2 nan 0.98 1.57 2.04 2.55 3.04 3.44 3.98 nan 0.93 1.31 1.61 1.9 2.19 2.58 3.16 nan 0.82 1 1.36 1.54 "
        "1.63 1.66 1.55 1.83 1.88 1.91 1.9 1.65 1.81 2.01 2.18 2.55 2.96 3 0.82 0.95 1.22 1.33 1.6 2.16 1.9 2.2 "
        "2.28 2.2 1.93 1.69 1.78 1.96 2.05 2.1 2.66 2.6 0.79 0.89 1.1 1.12 1.13 1.14 1.13 1.17 1.2 1.2 1.1 1.22 "
        "1.23 1.24 1.25 1.1 1.27 1.3 1.5 2.36 1.9 2.2 2.2 2.28 2.54 2 1.62 2.33 2.02 2 2.2 2.2 0.7 0.9 1.1 1.3 "
        "1.5 1.38 1.36 1.28 1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3 nan nan nan nan nan nan nan nan nan nan nan nan "
        "nan nan nan "
    ),
    float("nan"),
)
"""Pauling's electronegativity of each atomic number (values of Allred 1961 and later, as WebElements lists them); NaN
where there is none."""

COVALENT_RADII: tuple[float, ...] = _table(
    (
        "0.31 0.28 1.28 0.96 0.84 0.76 0.71 0.66 0.57 0.58 1.66 1.41 1.21 1.11 1.07 1.05 1.02 1.06 2.03 1.76 1.70 "
        "1.60 1.53 1.39 1.39 1.32 1.26 1.24 1.32 1.22 1.22 1.20 1.19 1.20 1.20 1.16 2.20 1.95 1.90 1.75 1.64 1.54 "
        "1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 1.38 1.39 1.40 2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 "
        "1.96 1.94 1.92 1.92 1.89 1.90 1.87 1.87 1.75 1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 "
        "1.50 1.50 2.60 2.21 2.15 2.06 2.00 1.96 1.90 1.87 1.80 1.69 "
    ),
    float("nan"),
)
"""Covalent radius of each atomic number in angstrom (Cordero et al. 2008, Dalton Trans., 2832); NaN above 96."""

_NOBLE = (2, 10, 18, 36, 54, 86, 118)

PERIODS: tuple[int, ...] = (
    0,
    *(next(row for row, last in enumerate(_NOBLE, 1) if number <= last) for number in range(1, 119)),
)
"""Row of the periodic table of each atomic number."""


def _group(number: int) -> int:
    if number == 1:
        return 1
    last = _NOBLE[PERIODS[number] - 1]
    first = _NOBLE[PERIODS[number] - 2] + 1 if PERIODS[number] > 1 else 1
    if number - first < 2 and number != 2:
        return number - first + 1
    # Lanthanides and actinides stand in the place of group 3.
    return max(3, 18 - (last - number))


GROUPS: tuple[int, ...] = (0, *(_group(number) for number in range(1, 119)))
"""Column of the periodic table of each atomic number, 1 to 18; lanthanides and actinides before the last count as 3."""
