"""The requests of benchmarks/corrections.py: the first four of each table are corrected, the other ten held out."""

SEARCH = (
    ("find every use of retry_budget", "retry_budget"), ("search the code for LegacyCart", "LegacyCart"),
    ("grep for MAX_DEPTH", "MAX_DEPTH"), ("I need every occurrence of spawn_worker", "spawn_worker"),
    ("where is 127.0.0.1 written?", "127.0.0.1"), ("find all places that mention audit_trail", "audit_trail"),
    ("search everywhere for debugger", "debugger"), ("find the callers of flush_buffers", "flush_buffers"),
    ("which lines contain old_token?", "old_token"), ("look for SIGTERM in our code", "SIGTERM"),
    ("where do we raise QuotaExceeded?", "QuotaExceeded"), ("grep the sources for shipping_cost", "shipping_cost"),
    ("show me all lines that have feature_flag_beta", "feature_flag_beta"), ("find the string eval_strict", "eval_strict"),
)  # fmt: skip
LIST = (
    ("list all Kotlin files", "'*.kt'"), ("show me the PHP files", "'*.php'"), ("find all SVG files here", "'*.svg'"),
    ("which Lua files do we have?", "'*.lua'"), ("list every Perl file", "'*.pl'"), ("list our Swift files", "'*.swift'"),
    ("give me a list of the proto files", "'*.proto'"), ("where are the Haskell files?", "'*.hs'"),
    ("find the Elixir files of this project", "'*.ex'"), ("what tf files are there?", "'*.tf'"), ("find each PNG file", "'*.png'"),
    ("show all Scala files in here", "'*.scala'"), ("do we have any Dart files?", "'*.dart'"),
    ("list the Vue files in this repository", "'*.vue'"),
)  # fmt: skip
EMPTY = (
    ("create the empty file audit.log", "audit.log"), ("create a new empty file errors.log", "errors.log"),
    ("add an empty file plugins/__init__.py", "plugins/__init__.py"), ("I need an empty file called todo.md", "todo.md"),
    ("make an empty file named seeds.txt", "seeds.txt"), ("make the empty file build.lock", "build.lock"),
    ("create an empty file for notes, notes_2031.md", "notes_2031.md"), ("write an empty file keep.txt", "keep.txt"),
    ("new empty file: data_01.csv", "data_01.csv"), ("we need conftest.py, create it as an empty file", "conftest.py"),
    ("put an empty file named marker.txt here", "marker.txt"), ("create empty_page.html and leave it empty", "empty_page.html"),
    ("make one empty file, schema.sql", "schema.sql"), ("create a file nothing.json without content", "nothing.json"),
)  # fmt: skip
WORDS = (
    ("create motd.txt that says Good evening", "motd.txt", "Good evening"), ("write Closed today to hours.txt", "hours.txt", "Closed today"),
    ("make a file owner.txt with Ada Lovelace", "owner.txt", "Ada Lovelace"), ("create terms.txt saying MIT", "terms.txt", "MIT"),
    ("put See page two into hint.txt", "hint.txt", "See page two"), ("make a file name.txt containing Orbit", "name.txt", "Orbit"),
    ("create the file stage.txt with beta", "stage.txt", "beta"), ("write Call Bob to reminder.txt", "reminder.txt", "Call Bob"),
    ("create quote.txt that says Stay hungry", "quote.txt", "Stay hungry"), ("new file city.txt with Oslo in it", "city.txt", "Oslo"),
    ("create a text file color.txt that says blue", "color.txt", "blue"), ("write ready to the file flag.txt", "flag.txt", "ready"),
    ("make price.txt that says 12 euros", "price.txt", "12 euros"), ("create tip.txt with Drink water", "tip.txt", "Drink water"),
)  # fmt: skip
FILED = (
    ("create menu.txt that says Soup today", "menu.txt", "Soup today"), ("write Gate 4 to boarding.txt", "boarding.txt", "Gate 4"),
    ("make a file guest.txt with Grace Hopper", "guest.txt", "Grace Hopper"), ("create door.txt saying Push", "door.txt", "Push"),
    ("put Ask Bob first into rule.txt", "rule.txt", "Ask Bob first"), ("make a file ship.txt containing Argo", "ship.txt", "Argo"),
    ("create the file phase.txt with alpha", "phase.txt", "alpha"), ("write Water plants to chores.txt", "chores.txt", "Water plants"),
    ("create advice.txt that says Sleep well", "advice.txt", "Sleep well"), ("new file river.txt with Rhine in it", "river.txt", "Rhine"),
    ("create a text file mood.txt that says calm", "mood.txt", "calm"), ("write stop to the file signal.txt", "signal.txt", "stop"),
    ("make fee.txt that says 9 dollars", "fee.txt", "9 dollars"), ("create joke.txt with Knock knock", "joke.txt", "Knock knock"),
)  # fmt: skip
AUTHORS = (
    ("who wrote pricing.py?", "pricing.py"), ("who changed checkout.html last time?", "checkout.html"),
    ("who edited styles.css most recently?", "styles.css"), ("who worked on cart.js last?", "cart.js"),
    ("tell me who changed parser.go", "parser.go"), ("who last touched seeds.rb?", "seeds.rb"),
    ("which person changed intro.md last?", "intro.md"), ("who made the last change to app.toml?", "app.toml"),
    ("whose changes are in mailer.py?", "mailer.py"), ("who has changed zones.yaml?", "zones.yaml"),
    ("who modified billing.sql last?", "billing.sql"), ("find out who changed help.md", "help.md"),
    ("who was the last to change nav.html", "nav.html"), ("who has written search.ts?", "search.ts"),
)  # fmt: skip
UNDO = (
    ("undo my edits in pricing.py", "pricing.py"), ("revert the changes to checkout.html", "checkout.html"),
    ("undo my last edits to cart.js", "cart.js"), ("reset app.toml to the committed version", "app.toml"),
    ("discard my changes to parser.go", "parser.go"), ("throw away what I did in seeds.rb", "seeds.rb"),
    ("take back my changes in mailer.py", "mailer.py"), ("undo all changes in zones.yaml", "zones.yaml"),
    ("drop my edits to billing.sql", "billing.sql"), ("undo my work on help.md", "help.md"),
    ("restore the old version of intro.md", "intro.md"), ("throw out the edits of search.ts", "search.ts"),
    ("undo what was changed in nav.html", "nav.html"), ("revert styles.css", "styles.css"),
)  # fmt: skip
TEST_FILES = (
    ("run the tests of tests/test_router.py", "tests/test_router.py"), ("run test_cart.py for me", "test_cart.py"),
    ("see if test_mailer.py passes", "test_mailer.py"), ("execute tests/test_api.py now", "tests/test_api.py"),
    ("run the test file test_zone.py", "test_zone.py"), ("run the tests in test_seeds.py", "test_seeds.py"),
    ("test_parser.py: does it pass?", "test_parser.py"), ("run all tests in test_nav.py", "test_nav.py"),
    ("run tests/test_login.py again", "tests/test_login.py"), ("check whether test_price.py passes", "test_price.py"),
    ("run the tests in tests/test_io.py", "tests/test_io.py"), ("now run test_colors.py once more", "test_colors.py"),
    ("run only the tests of test_help.py", "test_help.py"), ("start the tests of test_theme.py", "test_theme.py"),
)  # fmt: skip
SCRIPTS = (
    ("run the script nightly_sync.py", "nightly_sync.py"), ("execute tools/seed_demo.py now", "tools/seed_demo.py"),
    ("run benchmark_io.py and show its output", "benchmark_io.py"), ("run the program backfill.py", "backfill.py"),
    ("start warm_cache.py for me", "warm_cache.py"), ("run migrate_users.py right now", "migrate_users.py"),
    ("please start ops/rotate_keys.py", "ops/rotate_keys.py"), ("execute the script simulate.py", "simulate.py"),
    ("run crawl_feeds.py once", "crawl_feeds.py"), ("let publish_docs.py run", "publish_docs.py"),
    ("run hello_world.py for a test", "hello_world.py"), ("start the program dedupe_rows.py", "dedupe_rows.py"),
    ("run make_thumbnails.py again", "make_thumbnails.py"), ("execute compact_logs.py this time", "compact_logs.py"),
)  # fmt: skip
PACKAGES = (
    ("install the package pendulum", "pendulum"), ("please install orjson for us", "orjson"), ("install the library shapely", "shapely"),
    ("install tenacity, we need it", "tenacity"), ("install tabulate for the reports", "tabulate"), ("get structlog installed", "structlog"),
    ("install duckdb here", "duckdb"), ("now install polars as well", "polars"), ("pyarrow is needed, install the package", "pyarrow"),
    ("can you install faker for the tests?", "faker"), ("install a recent lxml", "lxml"), ("install networkx and nothing else", "networkx"),
    ("rapidfuzz is missing, install it", "rapidfuzz"), ("install cattrs into the environment", "cattrs"),
)  # fmt: skip
BRANCHES = (
    ("make a branch called speedup", "speedup"), ("make a new branch hotfix-41", "hotfix-41"), ("create a branch dark-mode", "dark-mode"),
    ("make the branch docs-refresh", "docs-refresh"), ("make a branch to try-redis", "try-redis"), ("new branch map-view", "map-view"),
    ("please make a branch for mobile-menu", "mobile-menu"), ("create the branch login-page", "login-page"),
    ("make a branch with the name cleanup-2", "cleanup-2"), ("start a branch typed-api", "typed-api"),
    ("make another branch, drop-py39", "drop-py39"), ("create a new branch csv-export", "csv-export"),
    ("make me a branch beta-7", "beta-7"), ("make a git branch less-memory", "less-memory"),
)  # fmt: skip
HISTORY = (
    ("show the last 7 commits", "-7"), ("list the newest 12 commits of main", "-12"), ("what was committed last?", "-1"),
    ("show me the latest 15 commits", "-15"), ("git log with 9 entries", "-9"), ("show the 4 latest commits please", "-4"),
    ("show the recent commits", ""), ("list our last 20 commits", "-20"), ("give me the last 6 commits", "-6"),
    ("which commits are the most recent?", ""), ("show 11 commits", "-11"), ("print the git log", ""),
    ("list the 8 newest commits", "-8"), ("show the commit history", ""),
)  # fmt: skip
COMMITS = (
    ("commit everything, message: Faster login", "Faster login"), ("commit all changes as Footer fixed", "Footer fixed"),
    ("commit it with the message Drop old themes", "Drop old themes"), ("please commit this as Cache the avatars", "Cache the avatars"),
    ("commit everything, message: Retry twice", "Retry twice"), ("commit all changes as Remove dead links", "Remove dead links"),
    ("commit it with the message Dark theme", "Dark theme"), ("please commit this as Smaller images", "Smaller images"),
    ("commit all of it as Translate the menu", "Translate the menu"), ("commit all changes as Handle empty carts", "Handle empty carts"),
    ("commit these files with message Sort by date", "Sort by date"), ("please commit this as Safer uploads", "Safer uploads"),
    ("commit my edits, the message is Log agents", "Log agents"), ("commit the work as Update the icons", "Update the icons"),
)  # fmt: skip
PRINTING = (
    ("create {} that prints {}", "greet_all.py", "Hello everybody"), ("make a script {} that prints {}", "bye.py", "See you"),
    ("create {} which prints {}", "ping.py", "pong"), ("create a program {} printing {}", "alarm.py", "Wake up"),
    ("write {}, it prints {}", "status_line.py", "Ready"), ("let there be a script {} that prints {}", "motto.py", "Keep it simple"),
    ("make {} that prints {}", "answer.py", "Forty two"), ("write a small script {} that prints {}", "note.py", "Remember the milk"),
    ("create the file {} that prints {}", "title.py", "Chapter one"), ("new script {} that prints {}", "start_msg.py", "Let us go"),
    ("create {} and let it print {}", "finish.py", "All done"), ("write the script {} printing {}", "bell.py", "Ding dong"),
    ("make a python script {} that prints {}", "weather_today.py", "Sunny"), ("create a script {} that prints {}", "season.py", "Winter"),
)  # fmt: skip
SHOWN = (
    ("tax.py", "def tax(net):\n    return net * 0.1", "tax should return net * 0.2", 2, "    return net * 0.2"),
    ("limits.py", "MAX_ROWS = 10\nMAX_COLS = 5", "set MAX_COLS to 8", 2, "MAX_COLS = 8"),
    (
        "hello.py",
        "def hello():\n    print('hello')",
        "hello should print 'good evening'",
        2,
        "    print('good evening')",
    ),
    ("app.yaml", "name: shop\nport: 80", "change port to 443", 2, "port: 443"),
    ("area.py", "def area(r):\n    return 3 * r * r", "area should return 3.14 * r * r", 2, "    return 3.14 * r * r"),
    ("flags.py", "DEBUG = True\nTRACE = False", "set DEBUG to False", 1, "DEBUG = False"),
    ("bye.py", "def bye():\n    print('bye')", "bye should print 'farewell'", 2, "    print('farewell')"),
    ("db.yaml", "user: root\npool: 4", "change pool to 16", 2, "pool: 16"),
    ("half.py", "def half(n):\n    return n / 3", "half must return n / 2", 2, "    return n / 2"),
    ("sizes.py", "SMALL = 3\nLARGE = 30", "set LARGE to 50", 2, "LARGE = 50"),
    ("double.py", "def double(n):\n    return n + 2", "make double return n * 2", 2, "    return n * 2"),
    ("mail.yaml", "host: smtp\nretries: 1", "change retries to 3", 2, "retries: 3"),
    ("wait.py", "def wait(s=1):\n    return s", "the default of s in wait should be 5", 1, "def wait(s=5):"),
    ("names.py", "FIRST = 'Ann'\nSECOND = 'Bo'", "set FIRST to 'Eve'", 1, "FIRST = 'Eve'"),
)
SHOWING = ("{} now has these lines:\n{}\n{}", "this is {}:\n{}\n\n{}", "{} is\n{}\n\nplease: {}", "our {}:\n{}\n{}")
REPLACE = (
    ('replace "beta" by "stable" in release.md', "release.md"), ("in palette.css, change red to green", "palette.css"),
    ('in terms.md, replace "he" with "they"', "terms.md"), ('swap "Monday" for "Tuesday" in agenda.txt', "agenda.txt"),
    ('change "localhost" to "db1" in deploy.cfg', "deploy.cfg"), ('change "v1" to "v2" in routes.rb', "routes.rb"),
    ('put "left" where grid.css has "right"', "grid.css"), ('change the word "cat" to "dog" in story.txt', "story.txt"),
    ("replace foo_bar by foo_baz in wiring.go", "wiring.go"), ('correct "recieved" to "received" in mail.html', "mail.html"),
    ('substitute "https" for "http" in links.md', "links.md"), ('change "EUR" to "USD" in prices.csv', "prices.csv"),
    ('in nav.html, "Home" should be "Start"', "nav.html"), ('replace "tmp" with "cache" in paths.ini', "paths.ini"),
)  # fmt: skip
UNRELATED = (
    ("what is in billing_rules.py?", "read"), ("read roadmap_2031.md to me", "read"), ("find the bug in ledger_sync.py", "read"),
    ("fix test_ferry.py", "read"), ("where is the function parse_ferry defined?", "search"), ("search for NotReadyError", "search"),
    ("which files import tomllib?", "search"), ("show all csv files in exports", "list"),
    ("make a file plan.txt that says Rest", "create"), ("make a new file OWNER containing Ada", "create"),
    ('change "north" to "south" in compass.md', "replace"), ("replace line 3 of poem.txt with The end", "lines"),
    ("install the package humanize", "packages"), ("run the test suite now", "tests"), ("run all unit tests now", "tests"),
    ("run the script resample.py", "scripts"), ("delete scratch_pad.py", "remove"), ("move logo_old.svg to attic", "move"),
    ("make a folder attic", "folder"), ("make a branch retry-queue", "branches"), ("show me the git diff", "diff"),
    ("pull the newest changes", "pull"), ("run make all", "build"), ("commit everything with the message Tidy up", "commits"),
    ("thanks a lot", "chat"), ("thank you very much", "chat"), ("show me the file roadmap_2031.md", "read"),
    ("remove the file scratch_pad.py", "remove"),
)  # fmt: skip
"""Requests whose answers must stay, each with what it is about: a habit leaves out those about the same. The first model answers
them well: its tool and main argument are what the request is after."""
APPROVED = (
    "what is in ledger_notes.md?", "find TimeoutError in the code", "list the Java files here", "install the package rich-click",
    "run the tests in tests/test_invoice.py", "create a file slogan.txt that says Think twice", "run the script tidy_up.py",
    "delete line 8 of packing_list.txt",
)  # fmt: skip
"""Ordinary work of a session, none of it measured."""
