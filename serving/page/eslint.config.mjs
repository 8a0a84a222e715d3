// Rules for the scripts of this page: `make lint-js`.

const BROWSER = [
  "AbortController", "Blob", "ResizeObserver", "TextDecoder", "URL", "addEventListener", "clearTimeout", "console",
  "document", "fetch", "location", "setTimeout",
];

export default [
  {
    files: ["**/*.js"],
    languageOptions: {
      ecmaVersion: 2024,
      sourceType: "module",
      globals: Object.fromEntries(BROWSER.map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "consistent-return": ["error", { treatUndefinedAsUnspecified: true }],
      "eqeqeq": "error",
      "getter-return": "error",
      "max-len": ["error", { code: 120, ignoreRegExpLiterals: true }],
      "max-lines-per-function": ["error", { max: 50 }],
      "no-const-assign": "error",
      "no-constant-condition": "error",
      "no-dupe-args": "error",
      "no-dupe-keys": "error",
      "no-duplicate-imports": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-implicit-globals": "error",
      "no-loop-func": "error",
      "no-redeclare": "error",
      "no-shadow": "error",
      "no-unreachable": "error",
      "no-undef": "error",
      "no-unused-expressions": "error",
      "no-unused-vars": "error",
      "no-use-before-define": ["error", { functions: false }],
      "no-var": "error",
      "prefer-const": "error",
      "prefer-template": "error",
      "require-atomic-updates": "off",
      "semi": ["error", "always"],
    },
  },
];
