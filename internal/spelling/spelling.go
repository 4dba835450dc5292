// Package spelling measures how far a word is from another, so that an error about a mistyped name
// can suggest the one that was meant.
package spelling

// Distance counts the bytes to insert, delete or replace between a and b (Levenshtein), up to
// limit. Words whose lengths differ by the limit are not looked at, so that a long a costs nothing
// where b is short.
func Distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return min(row[len(b)], limit)
}
